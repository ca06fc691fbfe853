"""Memory that trainings free: what the C library does with it, where it is GNU's."""

from __future__ import annotations

import ctypes

from automl.training.capacity import address_space_left

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # see mallopt(3)
_LARGEST_KEPT_BYTES = 2**25  # larger blocks are mapped one by one, and unmapped when freed
_MOST_KEPT_BYTES = 2**26  # at the heap's top


def keep_freed_memory() -> None:
    """Keep what is freed for the next step.

    By default the library gives up the activations of every step, whose pages the kernel then has
    to clear anew in the next one: keeping them makes a training 2 to 10 % faster. Where the address
    space is limited it is left at that: every thread keeps some of its own, and it would run out.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and address_space_left() is None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)


def return_freed_memory() -> None:
    """Give what earlier trainings have freed back to the kernel, so that it is measured again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
