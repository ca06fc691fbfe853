"""Published versions of a study and its champion, under `models/<study>/`."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from automl.domain.layout import CLAIM_FILE, MANIFEST_FILE, MODEL_FILE, ModelKeys
from automl.errors import (
    DamagedDataError,
    ExportError,
    NotFoundError,
    PreconditionFailedError,
)
from automl.publishing.manifest import (
    Champion,
    Claim,
    Manifest,
    Promotion,
    StoredFile,
    VersionFacts,
    parse_record,
)
from automl.publishing.promotions import Change, Promotions, version_before
from automl.storage.objects import ObjectStore

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
Judge = Callable[[int | None], str | None]  # why to follow a champion, if any; None: do not

log = logging.getLogger(__name__)


class Registry:
    """Versions exist when their manifest does; promotions are the truth about the champion.

    Every write is conditional or repeats the same bytes, so each method can run twice.
    """

    def __init__(self, store: ObjectStore, study: str) -> None:
        self._store = store
        self._study = study
        self._keys = ModelKeys(study)
        self._promotions = Promotions(store, self._keys)

    def claim_version(self, run: str) -> int:
        """Return the run's version number, reserving the next one the first time.

        Numbers are given without gaps, so that after a lost race the run's own number, or the next
        free one, is found by going on from there: each lost race costs one request.
        """
        claimed = self._numbers(CLAIM_FILE)
        for version in reversed(claimed):
            if self._owner(version) == run:
                return version
        version = max(claimed, default=0) + 1
        while True:
            try:
                self._store.put_if_absent(
                    self._keys.file(version, CLAIM_FILE), Claim(run=run).to_bytes()
                )
            except PreconditionFailedError:
                try:
                    owner = self._owner(version)
                except NotFoundError:  # somebody is just creating it
                    continue
                if owner != run:
                    version += 1
                    continue
            return version

    def put_file(self, version: int, name: str, data: bytes) -> None:
        """Store a file of a version that is not published yet.

        Files are written once: what a retry computes anew equals it but for rounding, so the bytes
        that came first stay.

        Raises:
            ExportError: the name is not allowed, or the version is published without these bytes.
        """
        if name in {CLAIM_FILE, MANIFEST_FILE} or not _NAME.fullmatch(name):
            raise ExportError(f"A version cannot have a file named {name!r}.")
        if self.exists(version):
            if self.manifest(version).files.get(name) != _describe(data):
                raise ExportError(
                    f"Version {version} of {self._study} is published; its {name} cannot change.",
                    "publish a new version",
                )
            return
        with suppress(PreconditionFailedError):
            self._store.put_if_absent(self._keys.file(version, name), data)

    def describe(self, version: int, name: str) -> StoredFile:
        """Return size and checksum of a file as it is stored; raise NotFoundError without one."""
        return _describe(self._get(version, name))

    def require_stored(self, version: int, files: Mapping[str, StoredFile]) -> None:
        """Compare files of a version that is not published yet with what they were.

        Raises:
            DamagedDataError: one has changed since then.
        """
        for name, before in files.items():
            if self.describe(version, name) != before:
                raise DamagedDataError(
                    f"{self.uri(version, name)} has changed since the export stored it.",
                    "nothing was published; the next run publishes a version of its own",
                )

    def write(
        self,
        version: int,
        files: Mapping[str, bytes],
        facts: VersionFacts,
        stored: Mapping[str, StoredFile] | None = None,
    ) -> Manifest:
        """Publish a claimed version: store its files, then the manifest, which lists all of them.

        Files that `put_file` stored before belong to it too. If the run has published the version
        already, that manifest is returned and nothing changes.

        Args:
            version: the number that the facts' run has claimed.
            files: content by name.
            facts: the rest of the manifest.
            stored: size and checksum of files stored before, where they are known; the others are
                read.

        Raises:
            ExportError: the version was claimed by another run, or has no `model.onnx`.
        """
        self._check_owner(version, facts.run)
        if self.exists(version):
            return self.manifest(version)
        for name, data in files.items():
            self.put_file(version, name, data)
        manifest = Manifest(
            **{name: getattr(facts, name) for name in VersionFacts.model_fields},
            study=self._study,
            version=version,
            files=self._described(version, stored or {}),
        )
        try:
            self._store.put_if_absent(self._keys.file(version, MANIFEST_FILE), manifest.to_bytes())
        except PreconditionFailedError:
            return self.manifest(version)
        return manifest

    def _check_owner(self, version: int, run: str) -> None:
        owner = self._owner(version)
        if owner != run:
            raise ExportError(
                f"Version {version} of {self._study} belongs to run {owner}, not {run}."
            )

    def _described(self, version: int, known: Mapping[str, StoredFile]) -> dict[str, StoredFile]:
        """Return size and checksum of the version's files; those that are not known are read."""
        described = {
            name: known[name] if name in known else self.describe(version, name)
            for name in self._file_names(version)
        }
        if MODEL_FILE not in described:
            raise ExportError(f"Version {version} of {self._study} has no {MODEL_FILE}.")
        return described

    def exists(self, version: int) -> bool:
        """Return whether the version is published."""
        try:
            self._store.get(self._keys.file(version, MANIFEST_FILE))
        except NotFoundError:
            return False
        return True

    def versions(self) -> tuple[int, ...]:
        """Return the published versions, oldest first."""
        return tuple(self._numbers(MANIFEST_FILE))

    def manifest(self, version: int) -> Manifest:
        """Return a version's manifest.

        Raises:
            NotFoundError: there is no such version.
        """
        key = self._keys.file(version, MANIFEST_FILE)
        try:
            data = self._store.get(key).data
        except NotFoundError as error:
            raise NotFoundError(
                f"Study {self._study} has no version {version}.",
                f"`automl models {self._study}` lists what there is",
            ) from error
        return parse_record(Manifest, data, key)

    def read(self, version: int, name: str) -> bytes:
        """Return the bytes of a version's file; those of a published one are checked.

        Raises:
            NotFoundError: there is no such file.
            DamagedDataError: it is not what the manifest says.
        """
        data = self._get(version, name)
        if self.exists(version):
            expected, found = self.manifest(version).files.get(name), _describe(data)
            if expected is None:
                raise NotFoundError(f"Version {version} of {self._study} has no {name}.")
            if found != expected:
                raise DamagedDataError(
                    f"{self.uri(version, name)} has SHA-256 {found.sha256}, its manifest says "
                    f"{expected.sha256}.",
                    "restore it from a backup, or promote another version",
                )
        return data

    def uri(self, version: int, name: str) -> str:
        """Return where a version's file lies, as a path or `s3://` URI."""
        return f"{self._store.uri.rstrip('/')}/{self._keys.file(version, name)}"

    def promotions(self) -> dict[int, Promotion]:
        """Return all promotions by number, oldest first."""
        latest = self._promotions.latest()
        return {} if latest is None else self._promotions.until(latest[0])

    def champion(self) -> Champion | None:
        """Return the champion by the latest promotion, None before the first.

        `champion.json` may be behind for a moment; what is returned here never is.
        """
        latest = self._promotions.latest()
        return None if latest is None else self._champion_of(*latest)

    def promote(self, version: int, who: str, why: str, at: datetime) -> Change:
        """Make a published version the champion; nothing is recorded if it is.

        Args:
            version: a published version.
            who: the run or the person.
            why: one sentence.
            at: now, with its time zone.

        Raises:
            NotFoundError: there is no such version.
            DamagedDataError: its `model.onnx` is not what was published.
        """
        self._require_whole(version)
        return self._change(lambda *_: (version, why), who, at)

    def rollback(self, who: str, why: str, at: datetime) -> Change:
        """Make the version champion again that was it before the present one (`version_before`).

        Args:
            who: the person.
            why: one sentence.
            at: now, with its time zone.

        Raises:
            NotFoundError: there was no other champion before, or its version is gone.
            DamagedDataError: the version's `model.onnx` is not what was published.
        """

        def choose(latest: int, _: int | None) -> tuple[int, str]:
            version = version_before(self._promotions.until(latest).values())
            if version is None:
                raise NotFoundError(
                    f"Study {self._study} had no champion before the present one.",
                    f"`automl promote {self._study} VERSION` makes any version the champion",
                )
            self._require_whole(version)
            return version, why

        return self._change(choose, who, at)

    def promote_once(self, version: int, who: str, judge: Judge, at: datetime) -> Champion:
        """Promote if `judge` says why, unless `who` has promoted this version before.

        A step that runs again after somebody rolled its version back must not undo that. A champion
        that another writer puts there meanwhile is judged anew.
        """

        def choose(latest: int, champion: int | None) -> tuple[int, str] | None:
            before = self._promotions.until(latest).values()
            is_done = any(each.to_version == version and each.who == who for each in before)
            why = None if is_done or champion == version else judge(champion)
            return None if why is None else (version, why)

        self._require_whole(version)
        self._change(choose, who, at)
        return self.repair_champion()

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

    def _require_whole(self, version: int) -> None:
        self.manifest(version)
        try:
            self.read(version, MODEL_FILE)
        except NotFoundError as error:
            raise DamagedDataError(
                f"{self.uri(version, MODEL_FILE)} is gone, and its manifest lists it.",
                "restore it from a backup, or promote another version",
            ) from error

    def _change(
        self, choose: Callable[[int, int | None], tuple[int, str] | None], who: str, at: datetime
    ) -> Change:
        """Record a promotion to what `choose` says of the latest one's number (0) and version.

        It returns a version and why; None for the present champion, which there is then.
        """
        while True:
            latest = self._promotions.latest()
            number, before = (0, None) if latest is None else (latest[0], latest[1].to_version)
            chosen = choose(number, before)
            if latest is not None and (chosen is None or before == chosen[0]):
                change = Change(*latest, is_new=False)
                break
            assert chosen is not None
            version, why = chosen
            promotion = Promotion(
                who=who,
                when=at.astimezone(UTC).isoformat(),
                why=why,
                from_version=before,
                to_version=version,
            )
            # Refused, somebody else's promotion came first: the choice is made anew after it.
            if self._promotions.add(number + 1, promotion):
                change = Change(number + 1, promotion, is_new=True)
                break
        self.repair_champion()
        return change

    def _move_forward(self, champion: Champion) -> None:
        try:
            stored = self._store.get(self._keys.champion)
        except NotFoundError:
            self._store.put_if_absent(self._keys.champion, champion.to_bytes())
            return
        try:
            present = parse_record(Champion, stored.data, self._keys.champion).promotion
        except DamagedDataError as error:  # it only repeats what the promotions say
            log.warning("%s is written anew: %s", self._keys.champion, error)
            present = 0
        if present < champion.promotion:
            self._store.put_if_match(self._keys.champion, champion.to_bytes(), stored.etag)

    def _champion_of(self, number: int, promotion: Promotion) -> Champion:
        version = promotion.to_version
        return Champion(
            version=version,
            uri=self._keys.from_champion(self._keys.file(version, MODEL_FILE)),
            sha256=self.manifest(version).files[MODEL_FILE].sha256,
            promoted_at=promotion.when,
            promotion=number,
        )

    def _numbers(self, name: str) -> list[int]:
        """Return the versions that have the file, in order."""
        folders = (key.split("/") for key in self._names(self._keys.prefix))
        return sorted(
            int(parts[0])
            for parts in folders
            if len(parts) == 2 and parts[0].isdecimal() and parts[1] == name
        )

    def _file_names(self, version: int) -> list[str]:
        return sorted(set(self._names(self._keys.version(version))) - {CLAIM_FILE, MANIFEST_FILE})

    def _owner(self, version: int) -> str:
        key = self._keys.file(version, CLAIM_FILE)
        return parse_record(Claim, self._store.get(key).data, key).run

    def _get(self, version: int, name: str) -> bytes:
        return bytes(self._store.get(self._keys.file(version, name)).data)

    def _names(self, prefix: str) -> Iterator[str]:
        for entry in self._store.list(prefix):
            yield entry.key.removeprefix(prefix)


def _describe(data: bytes) -> StoredFile:
    return StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
