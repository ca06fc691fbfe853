"""Tests of finding GPUs, of what fits on one, and of what a training step needs of it."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.errors import ConfigError, DeviceBusyError, DeviceError
from automl.machine.gpus.host import Gpu, find_gpus, parse_gpus, restrict
from automl.machine.gpus.lease import Patience, most_shares, take_share, visible_gpu
from automl.machine.gpus.ledger import Claim, GpuLedger, fits, locks_folder
from tests.gpus import GIB, NAME, listing, machine_with, pretended_gpus, uuid_of

WHOLE = Claim(None, 1, "everything")


def small(need_gib: int, most: int = 4) -> Claim:
    return Claim(need_gib * GIB, most, "a part")


def wait() -> Patience:
    return Patience.WAIT


# --- finding ---


def test_a_listing_gives_number_name_and_memory() -> None:
    gpus = pretended_gpus(2)

    assert parse_gpus(listing(gpus)) == gpus
    assert str(gpus[1]) == f"GPU 1 ({NAME}, 40 GiB)"


def test_a_gpu_that_shares_the_memory_of_the_host_has_none_of_its_own() -> None:
    (gpu,) = parse_gpus(f"0, {uuid_of(0)}, GB10, [N/A], [N/A]\n")

    assert (gpu.memory_bytes, gpu.is_partitioned) == (None, False)
    assert str(gpu) == "GPU 0 (GB10)"


@pytest.mark.parametrize(
    "line",
    [
        'Field "mig.mode.current" is not a valid field to query.',
        f"0, {uuid_of(0)}, A, 40960",
        "0, MIG-1, A, 40960, Enabled",
        f"0, {uuid_of(0)}, A, 40960 MiB, Disabled",
        f"first, {uuid_of(0)}, A, 40960, Disabled",
        f"0, {uuid_of(0)}/../x, A, 40960, Disabled",
    ],
)
def test_a_listing_that_is_not_understood_is_quoted(line: str) -> None:
    with pytest.raises(DeviceError) as caught:
        parse_gpus(line)

    assert repr(line) in caught.value.message
    assert "search.resources.gpus" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        (f"{uuid_of(1)}", [1]),
        ("GPU-00000002, 1", [2, 1]),
        ("1,-1,0", [1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_the_variable_of_cuda_restricts_and_orders_gpus(
    wanted: str | None, indices: list[int]
) -> None:
    assert [gpu.index for gpu in restrict(pretended_gpus(3), wanted)] == indices


@pytest.mark.parametrize("wanted", ["3", "0,0", "GPU-0", "GPU-ffff", "MIG-1", "first"])
def test_an_entry_that_names_no_single_gpu_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        restrict(pretended_gpus(3), wanted)

    assert repr(wanted) in caught.value.message
    assert uuid_of(2) in caught.value.message


def test_a_machine_without_the_command_has_no_gpu(tmp_path: Path) -> None:
    assert find_gpus({"PATH": str(tmp_path)}) == []


def test_the_command_is_asked_and_the_variable_counts(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, pretended_gpus(3))

    assert find_gpus(machine) == pretended_gpus(3)
    assert [gpu.index for gpu in find_gpus({**machine, "CUDA_VISIBLE_DEVICES": "2"})] == [2]


def test_a_driver_without_devices_means_none(tmp_path: Path) -> None:
    assert find_gpus(machine_with(tmp_path, [], says="No devices were found", exit_code=6)) == []


def test_a_broken_driver_is_an_error_unless_no_gpu_is_wanted(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, [], says="couldn't reach the driver", exit_code=9)

    with pytest.raises(DeviceError, match="exit code 9: couldn't reach the driver") as caught:
        find_gpus(machine)
    assert caught.value.retryable
    assert find_gpus({**machine, "CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_a_partitioned_gpu_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    gpus = [*pretended_gpus(1), Gpu(1, uuid_of(1), NAME, 40 * GIB, is_partitioned=True)]
    machine = machine_with(tmp_path, gpus)

    with pytest.raises(ConfigError, match=r"GPU 1 .* is in MIG mode"):
        find_gpus(machine)
    assert find_gpus({**machine, "CUDA_VISIBLE_DEVICES": "0"}) == gpus[:1]


# --- sharing ---


@pytest.mark.parametrize(
    ("claim", "others", "memory_bytes", "expected"),
    [
        (WHOLE, [], 40 * GIB, True),
        (small(80), [], 40 * GIB, True),
        (small(10), [small(30)], 40 * GIB, True),
        (small(11), [small(30)], 40 * GIB, False),
        (small(1), [WHOLE], 40 * GIB, False),
        (WHOLE, [small(1)], 40 * GIB, False),
        (small(1), [small(1)] * 3, 40 * GIB, True),
        (small(1), [small(1)] * 4, 40 * GIB, False),
        (small(1, most=8), [small(1, most=2)] * 2, 40 * GIB, False),
        (small(1), [small(1)], None, False),
    ],
)
def test_what_fits_beside_others(
    claim: Claim, others: list[Claim], memory_bytes: int | None, *, expected: bool
) -> None:
    assert fits(claim, others, memory_bytes) == expected


@given(
    claims=st.lists(
        st.builds(Claim, st.none() | st.integers(0, 50), st.integers(1, 5), st.just("")), max_size=9
    ),
    memory_bytes=st.none() | st.integers(0, 60),
)
def test_whatever_comes_no_gpu_is_overcommitted(
    claims: list[Claim], memory_bytes: int | None
) -> None:
    held: list[Claim] = []
    for claim in claims:
        if fits(claim, held, memory_bytes):
            held.append(claim)

    if len(held) > 1:
        needs = [claim.need_bytes or 0 for claim in held]
        assert memory_bytes is not None
        assert all(claim.need_bytes is not None for claim in held)
        assert sum(needs) <= memory_bytes
        assert len(held) <= min(claim.most for claim in held)


def test_a_share_is_held_until_it_is_closed(tmp_path: Path) -> None:
    (gpu,) = pretended_gpus(1)
    first, second = GpuLedger(tmp_path, gpu), GpuLedger(tmp_path, gpu)

    share = first.take(WHOLE)
    assert share is not None
    with share:
        assert share.gpu == gpu
        assert second.take(WHOLE) is None
        (holder,) = second.holders()
        assert holder.claim == WHOLE
    assert second.holders() == []
    assert second.take(small(1)) is not None


def test_a_lock_whose_text_is_not_understood_holds_the_whole_gpu(tmp_path: Path) -> None:
    ledger = GpuLedger(tmp_path, pretended_gpus(1)[0])
    share = ledger.take(small(1))
    assert share is not None
    (file,) = tmp_path.glob("*.share")
    file.write_text('{"shares": [1]}')

    assert ledger.take(small(1)) is None
    assert str(ledger.holders()[0]) == "process 0 (of another version)"


def test_nobody_counts_or_takes_shares_while_another_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = GpuLedger(tmp_path, pretended_gpus(1)[0])
    assert ledger.holders() == []
    monkeypatch.setattr("automl.machine.gpus.ledger._PATIENCE_S", 0.05)
    (guard,) = tmp_path.iterdir()

    with guard.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="cannot be used") as caught:
            ledger.take(WHOLE)
        with pytest.raises(DeviceError):
            ledger.holders()
    assert "that were stopped while they looked for a GPU" in caught.value.hint
    assert ledger.take(WHOLE) is not None


def test_files_of_a_gpu_are_for_all_users_whatever_the_umask(tmp_path: Path) -> None:
    folder = locks_folder({"AUTOML_GPU_LOCKS": str(tmp_path / "locks")})
    GpuLedger(folder, pretended_gpus(1)[0]).take(WHOLE)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    files = sorted(folder.iterdir())
    assert [file.suffix for file in files] == [".share", ".guard"]  # 0.share before guard
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666}


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (gpu,) = pretended_gpus(1)
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / f"{gpu.uuid}.guard").symlink_to(target)

    with pytest.raises(DeviceError, match=r"GPU 0 .* cannot be used"):
        GpuLedger(tmp_path, gpu).take(WHOLE)
    assert target.read_text() == "keep me"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent") as caught:
        locks_folder({"AUTOML_GPU_LOCKS": str(tmp_path / "absent" / "locks")})
    assert "AUTOML_GPU_LOCKS" in caught.value.hint


def test_the_least_shared_gpu_is_taken_first(tmp_path: Path) -> None:
    ledgers = [GpuLedger(tmp_path, gpu) for gpu in pretended_gpus(3)]

    shares = [take_share(ledgers, small(10), wait) for _ in range(6)]

    assert [share.gpu.index for share in shares if share is not None] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_shares_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="AUTOML_GPU_SHARES"):
        most_shares({"AUTOML_GPU_SHARES": text})


# --- the block in which a process trains ---


def test_a_process_sees_the_gpu_that_it_holds_and_no_other(tmp_path: Path) -> None:
    environment = {**machine_with(tmp_path, pretended_gpus(2)), "CUDA_VISIBLE_DEVICES": "1"}
    offered = []

    def claim_on(most: int) -> Claim:
        offered.append(most)
        return WHOLE

    with visible_gpu(claim_on, wait, environment) as gpu:
        assert gpu == pretended_gpus(2)[1]
        assert environment["CUDA_VISIBLE_DEVICES"] == uuid_of(1)
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert offered == [4]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_process_without_a_gpu_sees_none(tmp_path: Path, *, is_wanted: bool) -> None:
    environment = dict(machine_with(tmp_path, pretended_gpus(0 if is_wanted else 1)))

    with visible_gpu((lambda _: WHOLE) if is_wanted else None, wait, environment) as gpu:
        assert gpu is None
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_patience_decides_what_becomes_of_who_waits(tmp_path: Path) -> None:
    ledger = GpuLedger(tmp_path, pretended_gpus(1)[0])
    share = ledger.take(WHOLE)
    assert share is not None

    assert take_share([ledger], small(1), lambda: Patience.GO_WITHOUT) is None
    with pytest.raises(DeviceBusyError, match=r"GPU 0 .* is held by process \d+ \(everything\)"):
        take_share([ledger], small(1), lambda: Patience.GIVE_UP)
