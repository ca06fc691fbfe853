"""Every key under a home, spelled here and nowhere else.

```
datasets/<name>/<snapshot>/manifest.json, preprocess.onnx, rows, report.html
datasets/<name>/sources/<n>.json
datasets/<name>/sources/rows-<recipe>/, files/: blocks and pages of the ledger
studies/<name>/log/…    studies/<name>/leases/<n>.json    studies/<name>/pretrained/<n>.safetensors
studies/<name>/trials/<n>/<attempt>/checkpoint-<epoch>.safetensors, curve.jsonl, weights.safetensors
studies/<name>/runs/<run>/spec.json, weights.safetensors, final-fit.safetensors, cross-fit.npz,
    export.json
models/<name>/<version>/claim.json, model.onnx, …, manifest.json (last)
models/<name>/promotions/<n>.json    models/<name>/champion.json
```
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath

MODEL_FILE = "model.onnx"
SAMPLES_FILE = "samples.npz"
REPORT_FILE = "report.html"
CLAIM_FILE = "claim.json"
MANIFEST_FILE = "manifest.json"  # of snapshots and of versions: they exist when it does

STUDIES = "studies/"
PROBES = "probes/"  # keys that a check of the store writes, and removes again
_LOG = "log"
_CHECKPOINT = "checkpoint-"
_SHARD = re.compile(r"datasets/[^/]+/(?:sources/)?[^/]+/[^/]+-([0-9a-f]{16})\.safetensors")


def probe_key() -> str:
    """Return a key that nobody else writes."""
    return f"{PROBES}{uuid.uuid4().hex}"


def shard_digest(key: str) -> str | None:
    """Return the beginning of the SHA-256 that a shard's key tells; None for other keys."""
    match = _SHARD.fullmatch(key)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class SnapshotKeys:
    """The keys of one snapshot.

    Attributes:
        dataset: the dataset's name.
        snapshot: the snapshot's id.
    """

    dataset: str
    snapshot: str

    @property
    def envelope(self) -> str:
        """The envelope, whose existence makes the snapshot exist."""
        return self.file(MANIFEST_FILE)

    @property
    def preprocess(self) -> str:
        """The preprocessing graph."""
        return self.file("preprocess.onnx")

    @property
    def report(self) -> str:
        """The data report, which is for people and can be written again."""
        return self.file(REPORT_FILE)

    def shard(self, part: str, sha256: str) -> str:
        """Return the key of a shard of `part`; names differ if contents do."""
        return self.file(f"{part}-{sha256[:16]}.safetensors")

    def file(self, name: str) -> str:
        """Return the key of a file of the snapshot."""
        return f"{DatasetKeys(self.dataset).folder}/{self.snapshot}/{name}"


@dataclass(frozen=True, slots=True)
class DatasetKeys:
    """The keys of one dataset.

    Attributes:
        name: the dataset's name.
    """

    name: str

    @property
    def folder(self) -> str:
        """Folder that all of them lie under."""
        return f"datasets/{self.name}"

    @property
    def _sources(self) -> str:
        """Folder of what is known of sources, and was made from their rows."""
        return f"{self.folder}/sources"

    def source(self, fingerprint: str) -> str:
        """Return the key of the file that maps the state of a source to its snapshot."""
        return f"{self._sources}/{fingerprint}.json"

    def rows(self, recipe: str) -> str:
        """Return the beginning of the keys of all that was made from rows in one way."""
        return f"{self._sources}/rows-{recipe}/"

    @property
    def files(self) -> str:
        """Beginning of the keys of files that are kept as they are."""
        return f"{self._sources}/files/"

    def snapshot(self, snapshot: str) -> SnapshotKeys:
        """Return the keys of a snapshot."""
        return SnapshotKeys(self.name, snapshot)

    def snapshot_of(self, key: str) -> str | None:
        """Return the id of the snapshot whose envelope has `key`; None for other keys."""
        parts = key.removeprefix(f"{self.folder}/").split("/")
        return parts[0] if parts[1:] == [MANIFEST_FILE] else None


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of a study log that is kept as objects.

    Attributes:
        folder: what all of them lie under.
    """

    folder: str

    @property
    def segments(self) -> str:
        """Prefix of the keys of sealed segments."""
        return f"{self.folder}/segments/"

    def version(self, number: int) -> str:
        """Return the key of a version."""
        return f"{self.folder}/{number:012d}.json"

    def hundred(self, number: int) -> str:
        """Return what the keys of a version and of the others of its hundred start with."""
        return self.version(number).removesuffix(".json")[:-2]

    def segment(self, first: int) -> str:
        """Return the key of the segment that begins with version `first`."""
        return f"{self.segments}{first:012d}.json"


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """The keys of one attempt of a trial.

    Attributes:
        folder: what all of them lie under.
    """

    folder: str

    @classmethod
    def of(cls, key: str) -> AttemptKeys:
        """Return the keys of the attempt that a file is of."""
        return cls(str(PurePosixPath(key).parent))

    @property
    def curve(self) -> str:
        """The learning curve."""
        return f"{self.folder}/curve.jsonl"

    @property
    def weights(self) -> str:
        """The best weights."""
        return f"{self.folder}/weights.safetensors"

    @property
    def validation(self) -> str:
        """The best model's predictions for rows that were held out."""
        return f"{self.folder}/validation.npz"

    @property
    def checkpoints(self) -> str:
        """Prefix of the keys of checkpoints."""
        return f"{self.folder}/{_CHECKPOINT}"

    def checkpoint(self, epoch: int) -> str:
        """Return the key of the checkpoint of an epoch."""
        return f"{self.checkpoints}{epoch}.safetensors"


def checkpoint_epoch(key: str) -> int:
    """Return the epoch of the checkpoint under `key`."""
    return int(PurePosixPath(key).stem.removeprefix(_CHECKPOINT))


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of what the steps of one run leave for each other.

    Attributes:
        folder: what all of them lie under.
    """

    folder: str

    @property
    def specification(self) -> str:
        """The specification that the run was checked with."""
        return f"{self.folder}/spec.json"

    @property
    def problems(self) -> str:
        """All problems of the data, where they are too many for a message."""
        return f"{self.folder}/problems.csv"

    def member(self, place: int) -> str:
        """Return the key of what the final fit publishes of a member of the model, from 0."""
        name = "weights" if place == 0 else f"weights-{place}"
        return f"{self.folder}/{name}.safetensors"

    @property
    def export(self) -> str:
        """Record that the export leaves for the version's manifest."""
        return f"{self.folder}/export.json"

    def final_fit(self, other: int | None = None) -> str:
        """Return the key of the final fit's checkpoint.

        Args:
            other: number of the trial that is fitted, if it is not the winner.
        """
        name = "final-fit" if other is None else f"final-fit-{other}"
        return f"{self.folder}/{name}.safetensors"

    @property
    def cross_fit(self) -> str:
        """The winner's predictions for training rows, by fits that did not learn from them."""
        return f"{self.folder}/cross-fit.npz"


@dataclass(frozen=True, slots=True)
class StudyKeys:
    """The keys of one study.

    Attributes:
        name: the study's name.
    """

    name: str

    @property
    def folder(self) -> str:
        """Folder that all of them lie under."""
        return f"{STUDIES}{self.name}"

    @property
    def log(self) -> LogKeys:
        """The log, where it is kept as objects."""
        return LogKeys(f"{self.folder}/{_LOG}")

    @property
    def leases(self) -> str:
        """The folder of the leases."""
        return f"{self.folder}/leases"

    def trial(self, number: int, attempt: int) -> AttemptKeys:
        """Return the keys of an attempt of a trial."""
        return AttemptKeys(f"{self.folder}/trials/{number}/{attempt}")

    def run(self, name: str) -> RunKeys:
        """Return the keys of what a run's steps leave."""
        return RunKeys(f"{self.folder}/runs/{name}")

    def file(self, name: str) -> str:
        """Return the key of a file that the study's track keeps with it."""
        return f"{self.folder}/{name}"


def study_of_log(key: str) -> str | None:
    """Return the name of the study whose log has `key`; None if it is not of a log."""
    parts = key.split("/")
    is_of_log = len(parts) > 3 and parts[0] == STUDIES[:-1] and parts[2] == _LOG
    return parts[1] if is_of_log else None


def lease_key(folder: str, name: str) -> str:
    """Return the key of the lease `name` in a folder of leases."""
    return f"{folder}/{name}.json"


@dataclass(frozen=True, slots=True)
class ModelKeys:
    """The keys of a study's published versions.

    Attributes:
        study: the study's name.
    """

    study: str

    @property
    def prefix(self) -> str:
        """Prefix of all of them."""
        return f"models/{self.study}/"

    @property
    def champion(self) -> str:
        """The file that consumers read first."""
        return f"{self.prefix}champion.json"

    @property
    def promotions(self) -> str:
        """Prefix of the keys of promotions."""
        return f"{self.prefix}promotions/"

    def promotion(self, number: int) -> str:
        """Return the key of a promotion."""
        return f"{self.promotions}{number}.json"

    def version(self, version: int) -> str:
        """Return what the keys of a version start with."""
        return f"{self.prefix}{version}/"

    def file(self, version: int, name: str) -> str:
        """Return the key of a file of a version."""
        return f"{self.version(version)}{name}"

    def from_champion(self, key: str) -> str:
        """Return where `key` lies as seen from `champion.json`."""
        return key.removeprefix(self.prefix)
