"""Holders of GPUs: numbered files with locks, which the kernel frees when a process ends.

A share of a GPU is a file `<uuid>.<n>.share` that its holder keeps locked (`flock`) and that says
what the holder needs. A share whose lock is free belongs to nobody, whatever the file says. Shares
are counted and taken while the file `<uuid>.guard` is locked, for milliseconds.

The files lie in one folder of the machine for all users, `/tmp/automl-gpus` unless
`AUTOML_GPU_LOCKS` names another: processes that look into different folders do not see each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from automl.errors import ConfigError, DeviceError
from automl.machine.gpus.host import Gpu

LOCKS = "AUTOML_GPU_LOCKS"
_DEFAULT_FOLDER = "/tmp/automl-gpus"  # noqa: S108 - all users must find it; see `_opened`
_PATIENCE_S = 2.0  # for the guard, which is held for milliseconds
_POLL_S = 0.005
_SHARE = re.compile(r"\.(\d+)\.share")
_MOST_BYTES = 4096  # of a share's text


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim of a process to a GPU.

    Attributes:
        need_bytes: memory that it needs at most; None for the whole GPU.
        most: how many processes, itself included, it is ready to share the GPU with.
        purpose: what for, for people.
    """

    need_bytes: int | None
    most: int
    purpose: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A living process that holds a share.

    Attributes:
        pid: its process id, as it sees it itself.
        claim: what it wanted.
    """

    pid: int
    claim: Claim

    def __str__(self) -> str:
        return f"process {self.pid} ({self.claim.purpose})"


def fits(claim: Claim, others: list[Claim], memory_bytes: int | None) -> bool:
    """Return whether a GPU has room for `claim` beside the claims of `others`.

    The first one always fits. More do if all of them are ready to share with as many, and if what
    they need at most is no more than the GPU has.
    """
    if not others:
        return True
    claims = [claim, *others]
    needs = [each.need_bytes for each in claims if each.need_bytes is not None]
    if memory_bytes is None or len(needs) < len(claims):
        return False
    return len(claims) <= min(each.most for each in claims) and sum(needs) <= memory_bytes


def locks_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the locks, made for all users if it is missing.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(environment.get(LOCKS) or _DEFAULT_FOLDER)
    try:
        _make_for_all(folder)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} of the locks on GPUs cannot be made: {error.strerror}.",
            f"set {LOCKS} to a folder on a local disk that every user of the GPUs may write to",
        ) from error
    return folder


class GpuShare:
    """A share of a GPU, held until it is closed or the process ends.

    Its descriptor is closed on exec: no child holds the GPU when this process is dead.

    Args:
        gpu: the GPU.
        descriptor: the open file whose lock is the share; the share closes it.
    """

    def __init__(self, gpu: Gpu, descriptor: int) -> None:
        self.gpu = gpu
        self._descriptor = descriptor

    def __enter__(self) -> GpuShare:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class GpuLedger:
    """The shares of one GPU.

    Args:
        folder: where the locks are.
        gpu: the GPU.
    """

    def __init__(self, folder: Path, gpu: Gpu) -> None:
        self.gpu = gpu
        self._folder = folder

    def holders(self) -> list[Holder]:
        """Return the living processes that hold a share.

        Raises:
            DeviceError: the locks cannot be looked at.
        """
        with self._guarded():
            return list(self._held().values())

    def take(self, claim: Claim) -> GpuShare | None:
        """Return a share if the GPU has room for `claim`, else None.

        Raises:
            DeviceError: the locks cannot be looked at.
        """
        with self._guarded():
            held = self._held()
            others = [holder.claim for holder in held.values()]
            if not fits(claim, others, self.gpu.memory_bytes):
                return None
            number = next(n for n in range(len(held) + 1) if n not in held)
            descriptor = _opened(self._folder / f"{self.gpu.uuid}.{number}.share")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free: see `_held`
                text = json.dumps(asdict(Holder(os.getpid(), claim))).encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text, 0)
            except BaseException:
                os.close(descriptor)
                raise
            return GpuShare(self.gpu, descriptor)

    def _held(self) -> dict[int, Holder]:
        """Return the holders by the number of their share; the caller holds the guard."""
        held = {}
        for path in self._folder.iterdir():
            number = _SHARE.fullmatch(path.name.removeprefix(self.gpu.uuid))
            if number is None:
                continue
            descriptor = _opened(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held[int(number[1])] = _holder(os.pread(descriptor, _MOST_BYTES, 0))
            finally:
                os.close(descriptor)
        return held

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Lock the ledger inside the block."""
        path = self._folder / f"{self.gpu.uuid}.guard"
        try:
            descriptor = _locked(path, time.monotonic() + _PATIENCE_S)
            try:
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeviceError(
                f"The locks on {self.gpu} in {self._folder} cannot be used: {error}.",
                "give every user of the GPUs the right to write to the folder and its files, and "
                "end processes that were stopped while they looked for a GPU",
            ) from error


def _holder(text: bytes) -> Holder:
    """Return who wrote `text`; one that says nothing understandable wants the GPU for itself."""
    try:
        document = json.loads(text)
        claim = document["claim"]
        need = claim["need_bytes"]
        return Holder(
            int(document["pid"]),
            Claim(None if need is None else int(need), int(claim["most"]), str(claim["purpose"])),
        )
    except (ValueError, KeyError, TypeError):
        return Holder(0, Claim(None, 1, "of another version"))


def _locked(path: Path, limit_s: float) -> int:
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError) or time.monotonic() > limit_s:
                raise
            time.sleep(_POLL_S)
            continue
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody has tidied the folder up since it was opened


def _opened(path: Path) -> int:
    """Return a descriptor of a file that all users may write to, made if it is missing.

    It is opened without O_CREAT and never through a link: Linux refuses the former for others'
    files in a sticky folder (`fs.protected_regular`), and the latter could lead anywhere.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            os.fchmod(descriptor, 0o666)  # before others can see it, whatever the umask says
            with suppress(FileExistsError):  # another process was quicker
                os.link(temporary, path)
        finally:
            os.close(descriptor)
            Path(temporary).unlink()


def _make_for_all(folder: Path) -> None:
    if folder.is_dir():
        return
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    fresh.chmod(0o1777)
    try:
        fresh.rename(folder)
    except OSError:
        fresh.rmdir()
        if not folder.is_dir():  # else another process was quicker
            raise
