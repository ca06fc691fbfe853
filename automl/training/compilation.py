"""Compiled forward and backward passes, where they gain more time than compiling takes."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

Passes = Callable[[torch.Tensor], torch.Tensor]

_WARM_UP = 10  # passes that are not timed: the first ones are slower
_TIMED = 20  # passes of either kind whose median decides
_LONG_S = 600.0  # what is left of a training for which compiling is tried; it takes about a minute

log = logging.getLogger(__name__)


def _compile(module: nn.Module) -> Passes:
    # Read at the first call; without it up to 32 processes compile, whatever else the machine does.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(torch.get_num_threads()))
    return torch.compile(module, dynamic=False)


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiler of a module, and the clock that shows whether it was worth it.

    Attributes:
        compile: returns a module whose first pass compiles it for the shape of its images.
        synchronize: waits for what the device has been given to do.
        clock: seconds from any start.
    """

    compile: Callable[[nn.Module], Passes] = _compile
    synchronize: Callable[[], None] = torch.cuda.synchronize
    clock: Callable[[], float] = time.perf_counter


class CompiledPasses:
    """The passes of a module, compiled for every shape of images for which that pays.

    Where much of the training is left after a few passes, some are timed, then as many compiled
    ones, and the quicker kind is kept. A module that cannot be compiled is used as it is, and the
    log says why.

    Args:
        module: in the mode that it trains in.
        seconds_left: of the training.
        compiler: what compiles it.
    """

    def __init__(
        self,
        module: nn.Module,
        seconds_left: Callable[[], float],
        compiler: Compiler = Compiler(),
    ) -> None:
        self._module, self._seconds_left, self._compiler = module, seconds_left, compiler
        self._courses: dict[torch.Size, Generator[Passes, torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the module's output for images of a batch size that comes often.

        Args:
            images: (B, C, S, S); every other shape is compiled anew.
        """
        course = self._courses.get(images.shape)
        if course is None:
            course = self._courses[images.shape] = self._course()
            next(course)
        return course.send(images)(images)

    def close(self) -> None:
        """Forget what was compiled."""
        if self._courses:
            self._courses.clear()
            torch.compiler.reset()

    def _course(self) -> Generator[Passes, torch.Tensor]:
        """Yield how each of the images that are sent is passed on, after a first empty turn."""
        images = yield self._module
        for _ in range(_WARM_UP):
            images = yield self._module
        if self._seconds_left() >= _LONG_S:
            plain_s = yield from self._timed(self._module)
            compiled = self._compiled(images)
            if compiled is not None:
                compiled_s = yield from self._timed(compiled)
                log.info("compiled, a step takes %.2f times as long", compiled_s / plain_s)
                while compiled_s < plain_s:
                    yield compiled
        while True:
            yield self._module

    def _timed(self, passes: Passes) -> Generator[Passes, torch.Tensor, float]:
        """Yield the same passes for some steps, and return the median of the seconds of a step."""
        moments = []
        for _ in range(_TIMED + 1):
            self._compiler.synchronize()
            moments.append(self._compiler.clock())
            yield passes
        return median(end - start for start, end in itertools.pairwise(moments))

    def _compiled(self, images: torch.Tensor) -> Passes | None:
        """Return the compiled passes, or None if the module cannot be compiled.

        Both directions are tried out, and what this changes in the module is undone.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        try:
            compiled = self._compiler.compile(self._module)
            trained = [p for p in self._module.parameters() if p.requires_grad]
            torch.autograd.grad(compiled(images).float().sum(), trained)
        except RuntimeError as error:  # of all kinds, from a missing compiler to too little memory
            log.warning("the network is trained as it is, it cannot be compiled: %s", error)
            return None
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
        return compiled
