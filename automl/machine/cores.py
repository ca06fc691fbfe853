"""CPU cores that this process may use, and their division between trials.

The division is fixed by the study and the machine. Threads that followed what else runs there would
not do: sums depend on the number of threads, and a trial that goes on from its checkpoint must
equal one that was never stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from automl.domain.specification import SearchSection

_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_NO_QUOTA = frozenset({"max", "-1"})


def threads_of_trial(search: SearchSection) -> int:
    """Return how many CPU threads each trial of a search should use.

    They are `resources.cpus`, where it is set, but no more than there are cores. Else the cores of
    this machine are divided by `workers`, as if all of them ran here; on a machine that runs
    fewer of them the rest stays idle, and `resources.cpus` says better.
    """
    cores, cpus = available_cores(), search.resources.cpus
    return max(1, cores // search.workers) if cpus is None else min(cpus, cores)


def threads_of_final_fit(search: SearchSection) -> int:
    """Return how many CPU threads the final fit should use: `resources.cpus`, or all cores."""
    cores, cpus = available_cores(), search.resources.cpus
    return cores if cpus is None else min(cpus, cores)


def available_cores(
    processors: int | None = None, cgroups: str | None = None, root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the cores that this process may keep busy, 1 or more.

    A quota of its control groups counts in whole cores: a thread beyond them would make the others
    wait for it, whenever the quota is spent.

    Args:
        processors: those it may run on; by default what the kernel says.
        cgroups: text of `/proc/self/cgroup`; by default that of this process.
        root: where the control groups are mounted.
    """
    if processors is None:
        processors = len(os.sched_getaffinity(0))
    folders = group_folders("cpu", cgroups, root)
    quotas = [quota for folder in folders for quota in _quotas(folder)]
    return max(1, int(min([processors, *quotas])))


def group_folders(controller: str, cgroups: str | None, root: Path) -> Iterator[Path]:
    """Yield the folders that may limit this process: its control groups and all above them.

    A line is `id:controllers:path`, with no controllers in version 2 (man 7 cgroups). In a
    container the path may be one that the host sees; then only the root is there.

    Args:
        controller: what is limited, such as `cpu`.
        cgroups: text of `/proc/self/cgroup`; None for that of this process.
        root: where the control groups are mounted.
    """
    if cgroups is None:
        own = Path("/proc/self/cgroup")
        cgroups = own.read_text() if own.is_file() else ""
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = root
        elif controller in controllers.split(","):
            mount = root / controller
        else:
            continue
        place = PurePosixPath(path.lstrip("/"))
        for folder in (place, *place.parents):
            if (mount / folder).is_dir():
                yield mount / folder


def _quotas(folder: Path) -> Iterator[float]:
    """Yield the cores' worth of CPU time that the group in `folder` may take, if it is limited."""
    both = folder / "cpu.max"  # version 2: quota and period in one file
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if both.is_file():
        parts = both.read_text().split()
    elif quota.is_file() and period.is_file():
        parts = [quota.read_text().strip(), period.read_text().strip()]
    else:
        return
    if parts[0] not in _NO_QUOTA:
        yield int(parts[0]) / int(parts[1])


@contextmanager
def limited_pools(
    threads: int, environment: MutableMapping[str, str] = os.environ
) -> Iterator[None]:
    """Let the numerical libraries that are loaded inside the block make pools of `threads` threads.

    What the environment says already counts. Trainings set their own number, by which their sums
    are ordered, whatever is set here. torch's pool between operators stays as it is: a training
    never starts it.
    """
    added = [name for name in _POOLS if name not in environment]
    environment.update(dict.fromkeys(added, str(threads)))
    try:
        yield
    finally:
        for name in added:
            del environment[name]
