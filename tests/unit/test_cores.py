"""Tests of the cores that a process may use, and of how trials divide them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl.domain.specification import ResourcesSection, SearchSection
from automl.machine.cores import (
    available_cores,
    limited_pools,
    threads_of_final_fit,
    threads_of_trial,
)

OWN = len(os.sched_getaffinity(0))


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_without_control_groups_the_processors_count(tmp_path: Path) -> None:
    assert available_cores(6, "", tmp_path) == 6


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1), ("max 100000", 8)],
)
def test_a_quota_counts_in_whole_cores(tmp_path: Path, quota: str, cores: int) -> None:
    group(tmp_path, "pod/box", cpu__max=quota)

    assert available_cores(8, "0::/pod/box\n", tmp_path) == cores


def test_the_narrowest_quota_above_a_process_counts(tmp_path: Path) -> None:
    group(tmp_path, "pod", cpu__max="300000 100000")
    group(tmp_path, "pod/box", cpu__max="max 100000")

    assert available_cores(8, "0::/pod/box\n", tmp_path) == 3


def test_in_a_container_the_root_has_the_quota(tmp_path: Path) -> None:
    group(tmp_path, ".", cpu__max="400000 100000")

    assert available_cores(8, "0::/kubepods/pod1/box\n", tmp_path) == 4


def test_quotas_of_the_first_version_count_too(tmp_path: Path) -> None:
    group(tmp_path, "cpu/pod", **{"cpu__cfs_quota_us": "250000", "cpu__cfs_period_us": "100000"})
    group(tmp_path, "cpu", **{"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"})

    assert available_cores(8, "3:cpuset:/pod\n1:cpu,cpuacct:/pod\n0::/\n", tmp_path) == 2
    assert available_cores(8, "3:cpuset:/pod\n0::/\n", tmp_path) == 8


def test_the_cores_of_a_machine_are_divided_by_the_workers() -> None:
    assert threads_of_trial(SearchSection(workers=1)) == available_cores()
    assert threads_of_trial(SearchSection(workers=64)) == 1
    assert threads_of_final_fit(SearchSection(workers=64)) == available_cores() <= OWN


def test_what_the_study_says_counts_as_far_as_there_are_cores() -> None:
    one = SearchSection(workers=64, resources=ResourcesSection(cpus=1))
    many = SearchSection(workers=64, resources=ResourcesSection(cpus=1000))

    assert threads_of_trial(one) == threads_of_final_fit(one) == 1
    assert threads_of_trial(many) == threads_of_final_fit(many) == available_cores()


def test_pools_are_limited_in_the_block_but_not_against_the_environment() -> None:
    environment = {"MKL_NUM_THREADS": "7"}

    with limited_pools(3, environment):
        assert environment == {
            "MKL_NUM_THREADS": "7", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3",
        }  # fmt: skip
    assert environment == {"MKL_NUM_THREADS": "7"}


def test_the_entry_of_steps_imports_no_numerical_library() -> None:
    code = (
        "import sys, automl.steps.__main__, automl.steps.dispatch\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'onnxruntime'} & sys.modules.keys()))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "[]\n"
