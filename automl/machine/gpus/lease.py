"""The GPU of a training process: which one, for how long it waits for it, and shared with whom."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from enum import StrEnum

from automl.errors import ConfigError, DeviceBusyError
from automl.machine.gpus.host import VISIBLE, Gpu, find_gpus
from automl.machine.gpus.ledger import Claim, GpuLedger, GpuShare, locks_folder

SHARES = "AUTOML_GPU_SHARES"
_DEFAULT_SHARES = 4
_POLL_S = 0.2
_ASK_EVERY_S = 1.0
_SAY_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Patience(StrEnum):
    """Advice to a process that waits for a GPU."""

    WAIT = "wait"
    GO_WITHOUT = "go_without"
    GIVE_UP = "give_up"


@contextmanager
def visible_gpu(
    claim_on: Callable[[int], Claim] | None,
    patience: Callable[[], Patience],
    environment: MutableMapping[str, str] = os.environ,
) -> Iterator[Gpu | None]:
    """Hold a GPU inside the block, the only one that CUDA then sees; yield None for the CPU.

    Enter it before torch is imported. Whoever holds no GPU sees none: it trains on the CPU.

    Args:
        claim_on: what is wanted, from how many processes may share a GPU; None wants none.
        patience: asked about once a second while all GPUs are taken.
        environment: what the process, and CUDA in it, goes by.

    Raises:
        DeviceBusyError: `patience` has ended.
        DeviceError, ConfigError: as `find_gpus` and the ledger raise them.
    """
    gpus = [] if claim_on is None else find_gpus(environment)
    share = None
    if claim_on is not None and gpus:
        claim = claim_on(most_shares(environment))
        folder = locks_folder(environment)
        share = take_share([GpuLedger(folder, gpu) for gpu in gpus], claim, patience)
    before = environment.get(VISIBLE)
    environment[VISIBLE] = "" if share is None else share.gpu.uuid
    try:
        if share is None:
            log.info("holds no GPU and trains on the CPU")
            yield None
        else:
            with share:
                log.info("holds %s", share.gpu)
                yield share.gpu
    finally:
        if before is None:
            del environment[VISIBLE]
        else:
            environment[VISIBLE] = before


def most_shares(environment: Mapping[str, str]) -> int:
    """Return how many trials may share a GPU, 1 or more.

    Raises:
        ConfigError: `AUTOML_GPU_SHARES` is no such number.
    """
    text = environment.get(SHARES) or str(_DEFAULT_SHARES)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{SHARES} is {text!r}.", "set it to 1, for no sharing, or more")
    return int(text)


def take_share(
    ledgers: Sequence[GpuLedger], claim: Claim, patience: Callable[[], Patience]
) -> GpuShare | None:
    """Return a share of the least shared GPU that has room; None if it is to go without one.

    Args:
        ledgers: of the GPUs that may be used, 1 or more.
        claim: what is wanted.
        patience: asked about once a second while all are taken.

    Raises:
        DeviceBusyError: `patience` has ended.
    """
    ask_at_s = say_at_s = time.monotonic()
    while True:
        for ledger in sorted(ledgers, key=lambda each: len(each.holders())):
            share = ledger.take(claim)
            if share is not None:
                return share
        now_s = time.monotonic()
        if now_s >= ask_at_s:
            ask_at_s = now_s + _ASK_EVERY_S
            answer = patience()
            if answer is Patience.GO_WITHOUT:
                log.info("no GPU became free, and none is needed any more")
                return None
            if answer is Patience.GIVE_UP:
                raise DeviceBusyError(
                    f"No GPU became free: {occupation(ledgers)}.",
                    "give the pool automl_gpu no more slots than there are GPUs, or run fewer "
                    "workers",
                )
        if now_s >= say_at_s:
            say_at_s = now_s + _SAY_EVERY_S
            log.info("waits for a GPU: %s", occupation(ledgers))
        time.sleep(_POLL_S)


def occupation(ledgers: Sequence[GpuLedger]) -> str:
    """Return a line about who holds which GPU."""
    return "; ".join(f"{ledger.gpu} is {_held(ledger)}" for ledger in ledgers)


def _held(ledger: GpuLedger) -> str:
    holders = ledger.holders()
    return f"held by {', '.join(map(str, holders))}" if holders else "free"
