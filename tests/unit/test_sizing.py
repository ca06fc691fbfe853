"""Image size `auto`: what decides about it, and what never does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.facts import SpaceFacts
from automl.domain.settings import Settings
from automl.domain.specification import SearchSection
from automl.morphism.limits import Limits
from automl.morphism.memory import TrainingPlan, memory_need
from automl.morphism.pretrained import lite0
from automl.morphism.seeds import WIDE_WORKING_SIZE, seed_architectures
from automl.runs.context import StepContext
from automl.runs.preparation import dataset_request
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.limits import morphism_space, most_macs
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sizing import (
    BASE_SIZE,
    LARGE_SIZES,
    SIZE_STEP,
    FoundRows,
    choose_image_size,
)
from automl.training.inference import BATCH_ROWS

CPUS: dict[str, Any] = {"resources": {"gpus": 0}}
SHORT: dict[str, Any] = {"time_limit": "5m", **CPUS}
GPUS: dict[str, Any] = {"workers": 4}
TOP = "and auto goes up to 224"
EACH = "by 2 workers on 1 CPU thread each would train"
FEW = "EfficientNet-Lite0 for fewer than 5 epochs"
LITE = "EfficientNet-Lite0 would be beyond search.limits."
SMALL: dict[str, Any] = {**SHORT, "limits": {"parameters": 1_000_000}}
FACTS: Mapping[str, int | str] = {"classes": 10, "version": SPACE_VERSION, "pretrained": "ab"}


def rows(side: int, images: int = 3000) -> FoundRows:
    """Return images of one size, of which three in five are learnt from."""
    return FoundRows([side] * min(images, 512), images, max(1, round(0.6 * images)), 10)


def search(**keys: Any) -> SearchSection:
    return SearchSection.model_validate(keys)


def size(found: FoundRows, **keys: Any) -> int:
    return choose_image_size(found, search(**keys))[0]


@pytest.mark.parametrize(
    ("side", "images", "keys", "expected", "reason"),
    [
        (8, 1_797, {}, 8, "rounded to a multiple of 8"),
        (3, 1_797, {}, 8, "rounded to a multiple of 8"),
        (28, 7_000, SHORT, 32, "rounded to a multiple of 8"),
        (64, 1_000_000, SHORT, 64, "rounded to a multiple of 8"),
        (96, 4_027, SHORT, 96, "and the next size, 128 px, would enlarge it"),
        (90, 4_027, {}, 64, "and the next size, 96 px, would enlarge it"),
        (128, 3_409, SHORT, 128, "and the next size, 192 px, would enlarge it"),
        (400, 5_000, CPUS, 224, TOP),
        (400, 5_000, GPUS, 224, TOP),
        (400, 3_000, SHORT, 128, f"and at 192 px a search of 5m {EACH} {FEW} of 1,800 rows"),
        (400, 5_000, SHORT, 96, f"and at 128 px a search of 5m {EACH} {FEW} of 3,000 rows"),
        (400, 60_000, SHORT, 64, "and at 96 px a search of 5m"),
        (400, 60_000, CPUS, 128, "and at 192 px a search of 2h"),
        (400, 60_000, GPUS, 224, TOP),
        (400, 60_000, {"time_limit": "5m", "workers": 1}, 96, "5m by 1 worker on a GPU would"),
        (400, 1_000_000, CPUS, 64, "at 96 px the 1,000,000 images would take more than 16GiB"),
        (400, 1_000_000, GPUS, 64, "at 96 px the 1,000,000 images would take more than 16GiB"),
        (400, 5_000, {"max_trials": 8, **CPUS}, 128, f"a search of 8 trials in 2h {EACH}"),
        (400, 7_000, {"max_trials": 1, **CPUS}, 192, "a search of 1 trial in 2h"),
        (400, 5_000, {"limits": {"device_memory": "1GiB"}}, 128, LITE + "device_memory"),
        (400, 5_000, {"limits": {"latency_ms": 10}}, 96, LITE + "latency_ms"),
        (400, 5_000, SMALL, 96, f"5m {EACH} the seed 'wide' for fewer than 30 epochs"),
        (400, 5_000, {"limits": {"parameters": 10}}, 64, "beyond search.limits.parameters"),
    ],
)  # fmt: skip
def test_the_size_and_what_decided_about_it(
    side: int, images: int, keys: dict[str, Any], expected: int, reason: str
) -> None:
    chosen, why = choose_image_size(rows(side, images), search(**keys))

    assert chosen == expected
    assert why.startswith("auto: the median of ")
    assert f"is {side} pixels, and " in why or f"is {side} pixels, rounded" in why
    assert reason in why


def test_the_reason_tells_how_many_images_were_looked_at() -> None:
    assert "the images' longer sides" in choose_image_size(rows(8, 40), search())[1]
    some = choose_image_size(rows(8, 5_000), search())[1]
    assert "the longer sides of 512 of the 5,000 images" in some


def test_threads_of_a_trial_count() -> None:
    found = rows(400, 20_000)

    assert size(found, time_limit="30m", resources={"gpus": 0}) == 128
    assert size(found, time_limit="30m", resources={"gpus": 0, "cpus": 4}) == 192


searches = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 8),
        "max_trials": st.none() | st.integers(1, 200),
        "resources": st.fixed_dictionaries(
            {"gpus": st.integers(0, 1), "cpus": st.none() | st.integers(1, 64)}
        ),
        "limits": st.fixed_dictionaries(
            {
                "device_memory": st.none() | st.sampled_from(["64MiB", "512MiB", "1GiB", "2GiB"]),
                "latency_ms": st.none() | st.sampled_from([0.1, 1.0, 10.0, 20.0]),
                "parameters": st.none() | st.sampled_from([1, 10**5, 10**6]),
            }
        ),
    }
)
sides = st.integers(1, 5_000)
counts = st.integers(1, 4_000_000)
seconds = st.integers(1, 1_000_000)


@given(side=sides, images=counts, limit_s=seconds, keys=searches)
def test_the_size_is_one_of_a_few_and_never_enlarges_the_typical_image(
    side: int, images: int, limit_s: int, keys: dict[str, Any]
) -> None:
    chosen = size(rows(side, images), time_limit=f"{limit_s}s", **keys)

    assert chosen in {*range(SIZE_STEP, BASE_SIZE + 1, SIZE_STEP), *LARGE_SIZES}
    assert chosen <= max(SIZE_STEP, side + SIZE_STEP // 2)


@given(side=sides, images=counts, times=st.tuples(seconds, seconds), keys=searches)
def test_more_time_never_makes_images_smaller(
    side: int, images: int, times: tuple[int, int], keys: dict[str, Any]
) -> None:
    found = rows(side, images)
    few, many = (size(found, time_limit=f"{limit_s}s", **keys) for limit_s in sorted(times))

    assert few <= many


@given(side=sides, images=st.tuples(counts, counts), limit_s=seconds, keys=searches)
def test_more_rows_never_make_images_larger(
    side: int, images: tuple[int, int], limit_s: int, keys: dict[str, Any]
) -> None:
    few, many = (
        size(rows(side, count), time_limit=f"{limit_s}s", **keys) for count in sorted(images)
    )

    assert few >= many


@given(side=sides, images=counts, limit_s=seconds, keys=searches, more=st.integers(1, 8))
def test_more_workers_never_make_images_smaller(
    side: int, images: int, limit_s: int, keys: dict[str, Any], more: int
) -> None:
    found, limit = rows(side, images), f"{limit_s}s"
    further = {**keys, "workers": keys["workers"] + more}

    assert size(found, time_limit=limit, **keys) <= size(found, time_limit=limit, **further)


def test_only_what_decides_about_a_size_that_is_not_fixed_names_a_request(
    tmp_path: Path,
) -> None:
    store = FileObjectStore(tmp_path)

    def settings(keys: dict[str, Any], fixed: int | None, image_size: Any = "auto") -> object:
        return ImageRequest(
            "rows",
            store,
            "rows.npz",
            image_size=image_size,
            search=search(**keys),
            fixed_size=fixed,
        ).size_settings

    later = {"time_limit": "3h"}
    assert settings({}, None) != settings(later, None)
    assert settings({}, None) == settings({"seed": 7, "strategy": "random"}, None)
    assert settings({}, 64) == settings(later, 64) == 64
    assert settings({}, None, 32) == settings(later, None, 32) == 32


@pytest.mark.parametrize("pixels", LARGE_SIZES)
def test_what_trainings_at_a_large_size_are_predicted_by_holds_for_all_seeds(pixels: int) -> None:
    """Evaluation takes no more memory than training, and stems leave the wide seed enough."""
    networks = [lite0(pixels, 10).architecture, *seed_architectures(pixels, 10)]

    for network in networks:
        needs = [memory_need(network, TrainingPlan(64, rows)).total for rows in (0, BATCH_ROWS)]
        assert needs[0] == needs[1]
    halvings = next(n for n in range(4) if pixels <= WIDE_WORKING_SIZE * 2**n)
    assert pixels / 2**halvings >= 24


@pytest.mark.parametrize("pixels", [32, BASE_SIZE, *LARGE_SIZES, 512, 1024])
def test_a_search_at_any_size_may_start_from_the_pretrained_seed(pixels: int) -> None:
    macs = most_macs(pixels)
    facts = {**FACTS, "image_size": pixels} | ({} if macs is None else {"macs": macs})

    assert (macs is None) == (pixels <= 128)
    assert first_of(facts) == lite0(pixels, 10).architecture.genotype()


def test_a_run_that_records_no_limit_of_macs_has_the_usual_one() -> None:
    facts = {**FACTS, "image_size": 224}
    seed = lite0(224, 10).architecture

    assert seed.macs > Limits().macs
    assert first_of(facts) != seed.genotype()


def first_of(facts: Mapping[str, int | str]) -> str:
    """Return the genotype that a search with such facts starts from."""
    return morphism_space(search(), SpaceFacts.of(facts), None).seeds()[0].genotype


@pytest.mark.parametrize(
    ("origin", "gpus", "cpus"), [("cli", 0, 3), ("python", 0, 3), ("automl_photos/2026", 1, None)]
)
def test_resources_are_those_of_this_machine_where_it_trains_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, gpus: int, cpus: int | None
) -> None:
    monkeypatch.setattr("automl.machine.cores.available_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    data = {"source": str(tmp_path)}
    spec = study_spec({"name": "photos", "task": "image_classification", "data": data})
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", origin)

    request = dataset_request(context, lambda place: (FileObjectStore(tmp_path), place))

    resources = request.search.resources
    assert (resources.gpus, resources.cpus) == (gpus, cpus)
    assert context.spec.search.resources.gpus == 1
