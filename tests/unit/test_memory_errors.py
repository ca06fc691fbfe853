"""Which errors mean that memory ran out; how much there is; how much a block took."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from automl.training.capacity import address_space_left, machine_bytes, training_capacity
from automl.training.device import device_type, is_out_of_memory
from automl.training.peak_memory import peak_memory

MB = 2**20
# trains ever larger batches under a limit of the address space, and prints what is made of each
# error: 1 if it counts as a lack of memory
CHILD = """
import resource, sys
import torch
from automl.training.capacity import _pages
from automl.training.device import is_out_of_memory
from automl.training.initialization import initial_weights
from automl.training.module import Normalization, build_module, load_weights
from automl.morphism.seeds import seed_architectures
import torch._dynamo

torch.set_num_threads(1)
extra = int(sys.argv[1]) * 2**20
architecture = seed_architectures(32, 10)[2]
module = build_module(architecture, Normalization((0.0,) * 3, (1.0,) * 3))
load_weights(module, initial_weights(architecture, (0,)))
module.to(memory_format=torch.channels_last)
limit = _pages()[0] + extra
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    for batch in range(8, 1024, 8):
        images = torch.zeros(batch, 32, 32, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        module(images).sum().backward()
except Exception as error:
    print(int(is_out_of_memory(error)), repr(error).replace("\\n", " "))
"""


def errors_under(extra_mb: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(extra_mb)], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.stdout


@pytest.mark.parametrize("extra_mb", [30, pytest.param(64, marks=pytest.mark.soak), 101, 150])
def test_what_torch_raises_when_the_address_space_is_used_up_is_a_lack_of_memory(
    extra_mb: int,
) -> None:
    assert errors_under(extra_mb).startswith("1 ")


def test_so_are_errors_that_say_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as array:
        np.empty(2**60, dtype=np.uint8)
    assert is_out_of_memory(array.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("can't start new thread"),
        ImportError("x.so: failed to map segment from shared object"),
        SystemError("error return without exception set"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("out of memory, says somebody"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("DefaultCPUAllocator"),
    ],
)
def test_no_other_error_is_taken_for_one_while_there_is_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


VAGUE = """
import resource
from automl.training.capacity import _pages
from automl.training.device import is_out_of_memory
limit = _pages()[0] + {left} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
vague = RuntimeError("could not create a primitive"), ImportError("failed to map segment")
print([is_out_of_memory(e) for e in (*vague, RuntimeError("shapes differ"), ValueError("no"))])
"""


@pytest.mark.parametrize(("left", "counts"), [(20, True), (900, False)])
def test_a_vague_error_counts_if_nothing_is_left_of_the_address_space(
    left: int,
    counts: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", VAGUE.format(left=left)], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == str([counts, counts, False, False])


def test_a_process_has_its_share_of_the_machine() -> None:
    alone, shared = training_capacity("cpu", 1), training_capacity("cpu", 4)

    assert alone is not None
    assert shared is not None
    assert alone < machine_bytes()
    assert alone - shared == pytest.approx(0.75 * machine_bytes(), rel=0.01)
    assert address_space_left() is None


@pytest.mark.parametrize(
    ("name", "text", "bytes_"),
    [
        ("memory.max", "1048576\n", MB),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2097152\n", 2 * MB),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_a_control_group_bounds_it(
    tmp_path: Path, name: str, text: str, bytes_: int | None
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)

    assert machine_bytes(tmp_path) == (bytes_ or machine_bytes(tmp_path / "none"))


def test_a_peak_is_what_was_in_use_at_once_also_after_an_earlier_one() -> None:
    for size_mb in (160, 40, 80):
        with peak_memory("cpu") as peak:
            for _ in range(3):
                block = np.ones(size_mb * MB, dtype=np.uint8)
                del block

        assert peak.size_bytes == pytest.approx(size_mb * MB, abs=4 * MB)


def test_a_block_that_raises_is_not_measured() -> None:
    with pytest.raises(ValueError, match="so"), peak_memory("cpu") as peak:
        raise ValueError("so")
    assert peak.size_bytes is None


def test_without_a_gpu_the_device_type_is_cpu() -> None:
    assert (device_type() == "cpu") != torch.cuda.is_available()
