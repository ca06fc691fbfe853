"""`python -m tests.gpu_child FOLDER GPUS NEED_GIB MOST ROUNDS`: takes shares and checks them.

While it holds a share it has a file of its own in `FOLDER/busy/<uuid>`, named after its need in
GiB. It ends with 1 if it ever sees more there than a GPU may hold. With 0 rounds it takes one
share, says so and keeps it until it is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from automl.machine.gpus.lease import Patience, take_share
from automl.machine.gpus.ledger import Claim, GpuLedger, locks_folder
from tests.gpus import GIB, pretended_gpus

MEMORY_GIB = 40


def is_too_much(busy: Path, most: int) -> bool:
    needs = [int(entry.name.split("-")[0]) for entry in busy.iterdir()]
    alone = len(needs) > 1 and 0 in needs
    return alone or len(needs) > most or sum(needs) > MEMORY_GIB


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    count, need, most, rounds = (int(argument) for argument in arguments[1:])
    locks = locks_folder({"AUTOML_GPU_LOCKS": str(folder / "locks")})
    ledgers = [GpuLedger(locks, gpu) for gpu in pretended_gpus(count, MEMORY_GIB * GIB)]
    claim = Claim(need * GIB or None, most, "a test")

    def wait() -> Patience:
        return Patience.WAIT

    if rounds == 0:
        share = take_share(ledgers, claim, wait)
        assert share is not None
        # a descriptor that is not closed on exec would keep the lock in this process
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        grandchild = subprocess.Popen(sleeping, close_fds=False, stdout=subprocess.DEVNULL)
        sys.stdout.write(f"{share.gpu.index} {grandchild.pid}\n")
        sys.stdout.flush()
        time.sleep(600)
    for number in range(rounds):
        share = take_share(ledgers, claim, wait)
        assert share is not None
        with share:
            busy = folder / "busy" / share.gpu.uuid
            mine = busy / f"{need}-{os.getpid()}-{number}"
            mine.touch()
            too_much = is_too_much(busy, most)
            time.sleep(0.02)
            too_much = too_much or is_too_much(busy, most)
            mine.unlink()
        if too_much:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
