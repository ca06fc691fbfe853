"""Published versions of a study and its champion, under `models/<study>/`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from automl.errors import ExportError, NotFoundError, PreconditionFailedError
from automl.export.manifest import (
    Champion,
    Claim,
    Manifest,
    Promotion,
    StoredFile,
    VersionFacts,
    parse_record,
)
from automl.storage.objects import ObjectStore

MODEL_FILE = "model.onnx"
SAMPLES_FILE = "samples.npz"
REPORT_FILE = "report.html"
_CLAIM, _MANIFEST = "claim.json", "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Registry:
    """Versions exist when their manifest does; promotions are the truth about the champion.

    Every write is conditional or repeats the same bytes, so each method can run twice.
    """

    def __init__(self, store: ObjectStore, study: str) -> None:
        self._store = store
        self._study = study
        self._prefix = f"models/{study}/"
        self._champion_key = f"{self._prefix}champion.json"

    def claim_version(self, run: str) -> int:
        """Return the run's version number, reserving the next one the first time."""
        while True:
            claimed = self._numbers(_CLAIM)
            for version in reversed(claimed):
                key = self._key(version, _CLAIM)
                if parse_record(Claim, self._store.get(key).data, key).run == run:
                    return version
            version = max(claimed, default=0) + 1
            try:
                self._store.put_if_absent(self._key(version, _CLAIM), Claim(run=run).to_bytes())
            except PreconditionFailedError:
                continue  # another run took it, or our own write whose reply was lost
            return version

    def put_file(self, version: int, name: str, data: bytes) -> None:
        """Store a file of a version that is not published yet.

        Files are written once: what a retry computes anew equals it but for rounding, so the bytes
        that came first stay.

        Raises:
            ExportError: the name is not allowed, or the version is published without these bytes.
        """
        if name in {_CLAIM, _MANIFEST} or not _NAME.fullmatch(name):
            raise ExportError(f"A version cannot have a file named {name!r}.")
        if self.exists(version):
            if self.manifest(version).files.get(name) != _describe(data):
                raise ExportError(
                    f"Version {version} of {self._study} is published; its {name} cannot change.",
                    "publish a new version",
                )
            return
        with suppress(PreconditionFailedError):
            self._store.put_if_absent(self._key(version, name), data)

    def write(self, version: int, files: Mapping[str, bytes], facts: VersionFacts) -> Manifest:
        """Publish a claimed version: store its files, then the manifest, which lists all of them.

        Files that `put_file` stored before belong to it too. If the run has published the version
        already, that manifest is returned and nothing changes.

        Raises:
            ExportError: the version was claimed by another run, or has no `model.onnx`.
        """
        key = self._key(version, _CLAIM)
        owner = parse_record(Claim, self._store.get(key).data, key).run
        if owner != facts.run:
            raise ExportError(
                f"Version {version} of {self._study} belongs to run {owner}, not {facts.run}."
            )
        if self.exists(version):
            return self.manifest(version)
        for name, data in files.items():
            self.put_file(version, name, data)
        described = {
            name: _describe(self.read(version, name)) for name in self._file_names(version)
        }
        if MODEL_FILE not in described:
            raise ExportError(f"Version {version} of {self._study} has no {MODEL_FILE}.")
        manifest = Manifest(
            **{name: getattr(facts, name) for name in VersionFacts.model_fields},
            study=self._study,
            version=version,
            files=described,
        )
        try:
            self._store.put_if_absent(self._key(version, _MANIFEST), manifest.to_bytes())
        except PreconditionFailedError:
            return self.manifest(version)
        return manifest

    def exists(self, version: int) -> bool:
        """Return whether the version is published."""
        try:
            self._store.get(self._key(version, _MANIFEST))
        except NotFoundError:
            return False
        return True

    def versions(self) -> tuple[int, ...]:
        """Return the published versions, oldest first."""
        return tuple(self._numbers(_MANIFEST))

    def manifest(self, version: int) -> Manifest:
        """Return a version's manifest.

        Raises:
            NotFoundError: there is no such version.
        """
        key = self._key(version, _MANIFEST)
        try:
            data = self._store.get(key).data
        except NotFoundError as error:
            raise NotFoundError(
                f"Study {self._study} has no version {version}.",
                f"`automl models {self._study}` lists what there is",
            ) from error
        return parse_record(Manifest, data, key)

    def read(self, version: int, name: str) -> bytes:
        """Return the bytes of a version's file.

        Raises:
            NotFoundError: there is no such file.
        """
        return bytes(self._store.get(self._key(version, name)).data)

    def uri(self, version: int, name: str) -> str:
        """Return where a version's file lies, as a path or `s3://` URI."""
        return f"{self._store.uri.rstrip('/')}/{self._key(version, name)}"

    def promotions(self) -> dict[int, Promotion]:
        """Return all promotions by number, oldest first."""
        found: dict[int, Promotion] = {}
        for number in sorted(self._promotion_numbers()):
            key = self._promotion_key(number)
            found[number] = parse_record(Promotion, self._store.get(key).data, key)
        return found

    def promoted_versions(self) -> frozenset[int]:
        """Return the versions that are or were champion."""
        return frozenset(promotion.to_version for promotion in self.promotions().values())

    def champion(self) -> Champion | None:
        """Return the champion by the latest promotion, None before the first.

        `champion.json` may be behind for a moment; what is returned here never is.
        """
        latest = self._latest()
        return None if latest is None else self._champion_of(*latest)

    def promote(self, version: int, who: str, why: str, at: datetime) -> Champion:
        """Make a published version the champion; a no-op if it is.

        Args:
            version: a published version.
            who: the run or the person.
            why: one sentence.
            at: now, with its time zone.

        Raises:
            NotFoundError: there is no such version.
        """
        self.manifest(version)
        while True:
            latest = self._latest()
            if latest is not None and latest[1].to_version == version:
                return self.repair_champion()
            number = 1 if latest is None else latest[0] + 1
            promotion = Promotion(
                who=who,
                when=at.astimezone(UTC).isoformat(),
                why=why,
                from_version=None if latest is None else latest[1].to_version,
                to_version=version,
            )
            try:
                self._store.put_if_absent(self._promotion_key(number), promotion.to_bytes())
            except PreconditionFailedError:
                continue  # someone else's promotion came first, or our own reply was lost
            return self.repair_champion()

    def promote_once(self, version: int, who: str, why: str, at: datetime) -> Champion:
        """Promote unless `who` has promoted this version before.

        A step that runs again after somebody rolled its version back must not undo that.
        """
        for promotion in self.promotions().values():
            if promotion.to_version == version and promotion.who == who:
                return self.repair_champion()
        return self.promote(version, who, why, at)

    def repair_champion(self) -> Champion:
        """Move `champion.json` forward to the latest promotion and return the champion.

        Raises:
            NotFoundError: nothing has been promoted yet.
        """
        while True:
            champion = self.champion()
            if champion is None:
                raise NotFoundError(
                    f"Study {self._study} has no champion yet.",
                    f"`automl promote {self._study} VERSION` makes one",
                )
            try:
                self._move_forward(champion)
            except PreconditionFailedError:
                continue  # another writer moved it; look again
            return champion

    def _move_forward(self, champion: Champion) -> None:
        try:
            stored = self._store.get(self._champion_key)
        except NotFoundError:
            self._store.put_if_absent(self._champion_key, champion.to_bytes())
            return
        present = parse_record(Champion, stored.data, self._champion_key)
        if present.promotion < champion.promotion:
            self._store.put_if_match(self._champion_key, champion.to_bytes(), stored.etag)

    def _latest(self) -> tuple[int, Promotion] | None:
        number = max(self._promotion_numbers(), default=None)
        if number is None:
            return None
        key = self._promotion_key(number)
        return number, parse_record(Promotion, self._store.get(key).data, key)

    def _champion_of(self, number: int, promotion: Promotion) -> Champion:
        version = promotion.to_version
        return Champion(
            version=version,
            uri=f"{version}/{MODEL_FILE}",
            sha256=self.manifest(version).files[MODEL_FILE].sha256,
            promoted_at=promotion.when,
            promotion=number,
        )

    def _numbers(self, name: str) -> list[int]:
        """Return the versions that have the file, in order."""
        folders = (key.split("/") for key in self._keys(""))
        return sorted(
            int(parts[0])
            for parts in folders
            if len(parts) == 2 and parts[0].isdecimal() and parts[1] == name
        )

    def _file_names(self, version: int) -> list[str]:
        return sorted(set(self._keys(f"{version}/")) - {_CLAIM, _MANIFEST})

    def _promotion_numbers(self) -> list[int]:
        stems = (key.removesuffix(".json") for key in self._keys("promotions/"))
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _keys(self, folder: str) -> Iterator[str]:
        prefix = self._prefix + folder
        for entry in self._store.list(prefix):
            yield entry.key.removeprefix(prefix)

    def _key(self, version: int, name: str) -> str:
        return f"{self._prefix}{version}/{name}"

    def _promotion_key(self, number: int) -> str:
        return f"{self._prefix}promotions/{number}.json"


def _describe(data: bytes) -> StoredFile:
    return StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
