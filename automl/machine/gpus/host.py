"""The GPUs of this machine, as `nvidia-smi` lists them and `CUDA_VISIBLE_DEVICES` restricts them.

torch is not asked: a process must know its GPU before torch starts.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from automl.errors import ConfigError, DeviceError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_FIELDS = ("index", "uuid", "name", "memory.total", "mig.mode.current")
_NO_DEVICES = 6  # nvidia-smi's exit code where the driver finds no GPU
_TIMEOUT_S = 60.0  # a driver that nothing keeps loaded takes seconds for each GPU
_UUID = re.compile(r"GPU-[0-9a-f-]+")
_NONE = frozenset({"", "-1", "NoDevFiles"})  # the last is what Slurm sets

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: its place in nvidia-smi's list, which is the order of the PCI bus.
        uuid: its name for CUDA, such as `GPU-8932f937-d72c-4106-c12f-20bd9faed9f6`.
        name: the product.
        memory_bytes: its memory; None where it shares the host's.
        is_partitioned: whether it is in MIG mode.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    is_partitioned: bool = False

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GiB"
        return f"GPU {self.index} ({self.name}{memory})"


def find_gpus(environment: Mapping[str, str]) -> list[Gpu]:
    """Return the GPUs that a process with `environment` may use, in its order of preference.

    Without the command `nvidia-smi` on the `PATH` there are none, and where `CUDA_VISIBLE_DEVICES`
    is empty or -1 nothing is asked.

    Raises:
        DeviceError: `nvidia-smi` fails or says what this version does not understand.
        ConfigError: `CUDA_VISIBLE_DEVICES` names what is not there, or a GPU is in MIG mode.
    """
    wanted = environment.get(VISIBLE)
    if wanted is not None and _entries(wanted) == []:
        log.info("%s is %r: no GPU may be used", VISIBLE, wanted)
        return []
    command = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if command is None:
        log.info("there is no nvidia-smi on the PATH, and so no GPU")
        return []
    gpus = restrict(parse_gpus(_listing(command, environment)), wanted)
    for gpu in gpus:
        if gpu.is_partitioned:
            raise ConfigError(
                f"{gpu} is in MIG mode, which is not supported.",
                f"switch it off (nvidia-smi -i {gpu.index} -mig 0), or leave the GPU out of "
                f"{VISIBLE}",
            )
    return gpus


def _listing(command: str, environment: Mapping[str, str]) -> str:
    query = [command, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    remedy = f"repair the driver, or set search.resources.gpus to 0 or {VISIBLE} to -1"
    try:
        done = subprocess.run(
            query,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{command} does not answer: {error}.", remedy) from error
    if done.returncode == _NO_DEVICES:
        return ""
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise DeviceError(f"{command} ends with exit code {done.returncode}: {said}", remedy)
    return done.stdout


def parse_gpus(listing: str) -> list[Gpu]:
    """Return the GPUs of nvidia-smi's listing, one line each.

    Raises:
        DeviceError: a line is not what this version understands.
    """
    return [_parse(line) for line in listing.splitlines() if line.strip()]


def _parse(line: str) -> Gpu:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) == len(_FIELDS):
        index, uuid, name, memory, mig = fields
        memory_known = memory.isdecimal()
        if index.isdecimal() and _UUID.fullmatch(uuid) and (memory_known or memory == "[N/A]"):
            size_bytes = int(memory) * 2**20 if memory_known else None
            return Gpu(int(index), uuid, name, size_bytes, mig == "Enabled")
    raise DeviceError(
        f"nvidia-smi lists {line!r}, which is not {', '.join(_FIELDS)}.",
        f"set search.resources.gpus to 0 or {VISIBLE} to -1 to train on the CPU",
    )


def restrict(gpus: Sequence[Gpu], wanted: str | None) -> list[Gpu]:
    """Return the GPUs that `wanted`, a value of `CUDA_VISIBLE_DEVICES`, names, in its order.

    Numbers count nvidia-smi's list, whatever `CUDA_DEVICE_ORDER` says; a UUID may be cut short.

    Raises:
        ConfigError: an entry names no GPU, or more than one.
    """
    if wanted is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in _entries(wanted):
        if entry.isdecimal():
            found = [gpu for gpu in gpus if gpu.index == int(entry)]
        else:
            found = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        if len(found) != 1 or found[0] in chosen:
            there = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus) or "none"
            raise ConfigError(
                f"{VISIBLE} is {wanted!r}, but its entry {entry!r} names {len(found)} GPUs, or one "
                f"that is named before. There are: {there}.",
                "list numbers or UUIDs of GPUs, each once; partitions (MIG) are not supported",
            )
        chosen += found
    return chosen


def _entries(wanted: str) -> list[str]:
    """Return the entries that count: like CUDA, those before the first that means no GPU."""
    entries = [entry.strip() for entry in wanted.split(",")]
    ends = [place for place, entry in enumerate(entries) if entry in _NONE]
    return entries[: ends[0]] if ends else entries
