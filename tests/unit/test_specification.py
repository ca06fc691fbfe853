"""Tests of the study specification: parsing, problems and hashes."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from automl.domain.card import Card
from automl.domain.objective import Objective
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import Strategy, StudySpec
from automl.errors import ConfigError
from automl.steps.study_file import study_spec

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "study-file.md"
MINIMAL: dict[str, Any] = {
    "name": "digits",
    "task": "image_classification",
    "data": {"source": "train.csv"},
}


def with_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the minimal document with values set at key paths."""
    document = copy.deepcopy(MINIMAL)
    for path, value in values.items():
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


def problems_of(document: object, purpose: Purpose = Purpose.PUBLISH) -> dict[str, str]:
    """Return the messages of the problems by key path; each path must be told once."""
    with pytest.raises(ConfigError) as caught:
        study_spec(document, purpose=purpose)
    paths = [problem.path for problem in caught.value.problems]
    assert len(paths) == len(set(paths)), f"told twice: {paths}"
    return {problem.path: problem.message for problem in caught.value.problems}


def known_keys(model: type[BaseModel] = StudySpec, prefix: str = "") -> Iterator[str]:
    """Yield the key path of every value that is not a section."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = [
            part
            for part in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if inner:
            yield from known_keys(inner[0], f"{path}.")
        else:
            yield path


class TestDefaults:
    def test_name_task_and_source_are_enough(self) -> None:
        spec = study_spec(MINIMAL)

        assert spec.search.strategy is Strategy.BAYESIAN
        assert spec.search.time_limit == timedelta(hours=2)
        assert spec.search.workers == 2
        assert spec.schedule == "0 1 * * *"
        assert spec.timezone == "UTC"

    def test_defaults_written_out_change_nothing(self) -> None:
        spec = study_spec(MINIMAL)

        assert study_spec(json.loads(spec.canonical())) == spec

    def test_a_specification_cannot_be_changed(self) -> None:
        spec = study_spec(MINIMAL)

        with pytest.raises(ValidationError, match="frozen"):
            spec.search.workers = 3  # type: ignore[misc] # what mypy refuses too

    def test_the_document_is_left_as_it_was(self) -> None:
        document = with_values({"search.workers": "two", "data.source": 1})
        before = copy.deepcopy(document)

        problems_of(document)

        assert document == before


class TestProblems:
    def test_all_are_told_at_once_with_their_key_paths(self) -> None:
        document = with_values(
            {
                "name": "Digits!",
                "data.validation_fraction": 1.5,
                "data.label": 3,
                "search.workers": 0,
                "search.time_limit": "2 hours",
                "search.strategy": "bayes",
                "search.limits.parameters": -1,
                "search.objective": "roc_auc",
                "final_fit.ensemble": 3,
                "final_fit.from": 0,
                "export.approve": "yes",
                "schedule": "0 25 * * *",
                "timezone": "Mars/Olympus",
                "colour": "red",
            }
        )

        assert set(problems_of(document)) == {
            "name", "data.validation_fraction", "data.label", "search.workers",
            "search.time_limit", "search.strategy", "search.limits.parameters",
            "search.objective", "final_fit.ensemble", "final_fit.from", "export.approve",
            "schedule", "timezone", "colour",
        }  # fmt: skip

    def test_the_message_counts_them_and_names_the_study(self) -> None:
        with pytest.raises(ConfigError) as caught:
            study_spec(with_values({"search.workers": 0, "search.seed": -1}))

        assert caught.value.message == "The specification of study 'digits' has 2 problems."
        assert "docs/formats/study-file.md" in caught.value.hint
        assert "search.workers: 0 is wrong: " in str(caught.value)

    @pytest.mark.parametrize("missing", ["name", "task", "data"])
    def test_a_missing_key_is_required(self, missing: str) -> None:
        document = {key: value for key, value in MINIMAL.items() if key != missing}

        assert problems_of(document) == {missing: "this key is required"}

    def test_a_missing_source_does_not_hide_other_problems(self) -> None:
        document = with_values({"data": {"split": "group"}, "search.workers": 0})

        problems = problems_of(document)

        assert problems["data.source"] == "this key is required"
        assert {"data.group", "search.workers"} <= set(problems)

    def test_an_empty_document_lists_what_is_required(self) -> None:
        assert set(problems_of({})) == {"name", "task", "data"}

    @pytest.mark.parametrize("document", [None, "name: digits", [MINIMAL], 3])
    def test_something_else_than_a_mapping_is_refused(self, document: object) -> None:
        with pytest.raises(ConfigError, match="A study is a mapping"):
            study_spec(document)

    @pytest.mark.parametrize("section", ["data", "search", "search.limits", "export", "retention"])
    @pytest.mark.parametrize("value", ["fast", 3, []])
    def test_a_value_in_place_of_a_section_is_refused(self, section: str, value: object) -> None:
        problems = problems_of(with_values({section: value}))

        assert "is not a section" in problems[section]

    @pytest.mark.parametrize(
        ("path", "suggestion"),
        [
            ("sarch", "search"),
            ("data.sorce", "source"),
            ("search.time_limt", "time_limit"),
            ("search.limits.latency", "latency_ms"),
            ("final_fit.form", "from"),
        ],
    )
    def test_a_typo_gets_a_suggestion(self, path: str, suggestion: str) -> None:
        problems = problems_of(with_values({path: 1}))

        assert problems == {path: f"unknown key; did you mean {suggestion!r}?"}

    def test_an_unknown_key_that_resembles_none_lists_those_known_there(self) -> None:
        problems = problems_of(with_values({"retention.zzz": 1}))

        assert problems == {"retention.zzz": "unknown key; known here: versions, trials, snapshots"}

    @pytest.mark.parametrize("name", ["search", "maintenance"])
    def test_reserved_names_are_refused(self, name: str) -> None:
        assert "reserved" in problems_of(with_values({"name": name}))["name"]

    @pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a/b", "../a", "a" * 64, "a\n"])
    def test_names_that_are_no_folder_name_are_refused(self, name: str) -> None:
        assert "name" in problems_of(with_values({"name": name}))

    @given(
        st.dictionaries(
            st.sampled_from(sorted(known_keys())),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([None]),
            max_size=6,
        )
    )
    def test_any_values_are_accepted_or_told_once_each(self, values: dict[str, Any]) -> None:
        values = {path: value for path, value in values.items() if not path.startswith("predict")}
        try:
            study_spec(with_values(values))
        except ConfigError as error:
            paths = [problem.path for problem in error.problems]
            assert paths
            assert len(paths) == len(set(paths))


class TestTypes:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("search.workers", "2"),
            ("search.workers", 2.0),
            ("search.workers", True),
            ("search.seed", "0"),
            ("search.max_trials", 1.5),
            ("data.source", 7),
            ("data.label", True),
            ("data.image_size", "32"),
            ("data.image_size", "automatic"),
            ("data.image_size", 3),
            ("data.columns", ["age"]),
            ("data.max_pixels", 0),
            ("final_fit.ensemble", "all"),
            ("final_fit.ensemble", 0),
            ("final_fit.ensemble", 17),
            ("task", ""),
            ("data.validation_fraction", "0.2"),
            ("data.test_fraction", float("nan")),
            ("data.max_bad_fraction", 1.01),
            ("final_fit.retrain", 1),
            ("final_fit.retrain", "true"),
            ("export.min_improvement", float("inf")),
            ("search.slice", 600),
            ("search.time_limit", None),
            ("search.limits.device_memory", 10**9),
            ("search.limits.device_memory", "4 gigs"),
            ("schedule", ""),
            ("timezone", 1),
            ("notify", "me@example.org"),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, path: str, value: object) -> None:
        problems = problems_of(with_values({path: value}))

        assert list(problems) == [path]
        assert repr(value) in problems[path]

    def test_a_kind_of_column_that_is_not_known_is_told_with_the_column(self) -> None:
        columns = {"age": "number", "farm": "place", "day": 3}

        problems = problems_of(with_values({"data.columns": columns}))

        assert problems.keys() == {"data.columns.farm", "data.columns.day"}
        assert problems["data.columns.farm"].startswith("'place' is not one of 'number', 'cat")

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("data.image_size", "'big' is neither 'auto' nor an integer from 4 to 1024"),
            ("final_fit.ensemble", "'big' is neither 'auto' nor an integer from 1 to 16"),
        ],
    )
    def test_a_value_besides_auto_names_what_there_is(self, path: str, words: str) -> None:
        assert problems_of(with_values({path: "big"})) == {path: words}

    def test_a_word_that_is_not_known_lists_those_that_are(self) -> None:
        message = problems_of(with_values({"search.strategy": "grid"}))["search.strategy"]

        assert "'grid' is not one of" in message
        assert all(strategy in message for strategy in Strategy)


class TestAvailability:
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("data.columns", {"age": "number"}),
            ("data.weights", "weight"),
            ("search.objective", "log_loss"),
            ("search.prefer", "small"),
            ("search.spend.gpu_hours", 1.0),
            ("search.resources.gpus", 2),
            ("search.resources.memory", "4GB"),
            ("final_fit.ensemble", 2),
            ("export.sign", "key"),
            ("export.quantize", "int8"),
            ("export.max_loss", 0.01),
            ("export.approve", True),
            ("export.samples", False),
            ("predict", {"source": "in", "output": "out"}),
            ("notify", ["me@example.org"]),
            ("retention.versions", 11),
        ],
    )
    def test_what_is_not_built_is_refused_with_a_way_on(self, path: str, value: object) -> None:
        problems = problems_of(with_values({path: value}))

        assert list(problems) == [path]
        assert re.search(r" is not available yet; (use|leave) ", problems[path])

    @pytest.mark.parametrize("task", ["tabular_classification", "tabular_regression"])
    def test_tables_are_not_available_yet(self, task: str) -> None:
        assert problems_of(with_values({"task": task})) == {
            "task": f"{task!r} is not available yet; use image_classification"
        }

    @pytest.mark.parametrize("ensemble", ["auto", 1])
    def test_one_network_is_published(self, ensemble: str | int) -> None:
        spec = study_spec(with_values({"final_fit.ensemble": ensemble}))

        assert spec.final_fit.ensemble == ensemble

    def test_a_broken_value_is_not_called_unavailable_as_well(self) -> None:
        problems = problems_of(with_values({"predict": {"source": 1}, "data.resize": "crop"}))

        assert problems.keys() == {"predict.source", "predict.output", "data.resize"}
        assert not any("not available" in message for message in problems.values())


class TestTracks:
    """The card of a task's track decides what a study file may say."""

    POEMS = Card(
        task="poems",
        objectives=frozenset({Objective.LOG_LOSS, Objective.MACRO_F1}),
        default_objective=Objective.LOG_LOSS,
        data_keys=frozenset({"source", "label"}),
        uses_gpu=False,
        track="poems:TRACK",
        most_members=2,
    )

    def parse(self, values: dict[str, Any] | None = None) -> StudySpec:
        document = with_values({"task": "poems", **(values or {})})
        return parse_spec(document, {"poems": self.POEMS})

    def problems(self, values: dict[str, Any]) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            self.parse(values)
        return {problem.path: problem.message for problem in caught.value.problems}

    def test_its_objective_is_the_default(self) -> None:
        assert self.parse().search.objective is Objective.LOG_LOSS
        assert self.parse({"search.seed": 3}).search.objective is Objective.LOG_LOSS
        chosen = self.parse({"search.objective": "macro_f1"})
        assert chosen.search.objective is Objective.MACRO_F1

    def test_its_task_stays_a_text(self) -> None:
        assert self.parse().task == "poems"

    def test_other_objectives_are_refused(self) -> None:
        assert self.problems({"search.objective": "accuracy"}) == {
            "search.objective": "'accuracy' is not available yet; use log_loss or macro_f1"
        }
        assert self.problems({"search.objective": "mae"}) == {
            "search.objective": "mae does not fit task poems"
        }

    @pytest.mark.parametrize(
        ("key", "value"), [("images", "folder"), ("image_size", 32), ("split", "random")]
    )
    def test_keys_that_it_does_not_understand_are_refused(self, key: str, value: object) -> None:
        assert self.problems({f"data.{key}": value}) == {
            f"data.{key}": f"{value!r} means nothing to task poems; leave it out"
        }

    def test_their_defaults_and_its_own_keys_are_fine(self) -> None:
        self.parse({"data.images": None, "data.label": "verse", "data.image_size": "auto"})

    def test_it_blends_as_many_members_as_it_can(self) -> None:
        assert self.parse({"final_fit.ensemble": 2}).final_fit.ensemble == 2
        assert self.problems({"final_fit.ensemble": 3}) == {
            "final_fit.ensemble": "3 is not available yet; use auto, or at most 2"
        }

    def test_a_task_of_no_installed_track_is_refused_with_those_that_are(self) -> None:
        assert self.problems({"task": "songs", "data.images": "folder"}) == {
            "task": "no installed track has the task 'songs'; use poems"
        }

    def test_a_task_that_is_no_text_is_told_once(self) -> None:
        assert list(self.problems({"task": 3, "search.objective": "rmse"})) == ["task"]


class TestCombinations:
    def test_held_out_rows_must_leave_rows_to_train_on(self) -> None:
        values = {"data.validation_fraction": 0.5, "data.test_fraction": 0.5}

        message = problems_of(with_values(values))["data.validation_fraction"]

        assert "add up to 1" in message

    def test_a_published_version_needs_test_rows(self) -> None:
        document = with_values({"data.test_fraction": 0.0})

        assert set(problems_of(document)) == {"data.test_fraction"}
        assert study_spec(document, purpose=Purpose.ESTIMATOR).data.test_fraction == 0

    @pytest.mark.parametrize("split", ["group", "time"])
    def test_a_split_by_a_column_needs_the_column(self, split: str) -> None:
        assert f"data.{split}" in problems_of(with_values({"data.split": split}))

    @pytest.mark.parametrize("column", ["group", "time"])
    def test_a_column_without_its_split_is_refused(self, column: str) -> None:
        message = problems_of(with_values({f"data.{column}": "farm"}))[f"data.{column}"]

        assert f"only split: {column} uses it" in message

    def test_an_own_test_set_leaves_no_test_fraction(self) -> None:
        assert "data.test_fraction" in problems_of(with_values({"data.test_source": "test.csv"}))

    @pytest.mark.parametrize(
        "values",
        [
            {"data.test_source": "test.csv", "data.test_fraction": 0.0},
            {"data.split": "group", "data.group": "farm"},
            {"data.split": "time", "data.time": "day"},
            {"data.resize": "letterbox"},
        ],
    )
    def test_rows_are_held_out_and_resized_as_studies_ask(self, values: dict[str, object]) -> None:
        assert study_spec(with_values(values)).data.model_fields_set >= {
            path.removeprefix("data.") for path in values
        }

    def test_the_objective_must_fit_the_task(self) -> None:
        message = problems_of(with_values({"search.objective": "rmse"}))["search.objective"]

        assert message == "rmse does not fit task image_classification"

    def test_a_cost_limit_needs_a_price(self) -> None:
        problems = problems_of(with_values({"search.spend.max_cost": 5.0}))

        assert problems["search.spend.price_per_gpu_hour"] == "max_cost needs a price"


class TestHashes:
    def test_the_order_and_spelling_of_the_document_do_not_count(self) -> None:
        first = study_spec(with_values({"search.time_limit": "120m", "search.seed": 3}))
        second = study_spec(with_values({"search.seed": 3, "search.time_limit": "2h"}))

        assert first.canonical() == second.canonical()
        assert first.spec_hash == second.spec_hash

    def test_every_accepted_change_changes_the_hash(self) -> None:
        variants: list[dict[str, Any]] = [
            {}, {"name": "other"}, {"data.source": "b.csv"}, {"data.images": "i"},
            {"data.label": "Label"}, {"data.image_size": 32}, {"data.split": "random"},
            {"search.seed": 1}, {"search.workers": 3}, {"search.time_limit": "1h"},
            {"search.max_trials": 5}, {"search.slice": "5m"}, {"search.priority": 2},
            {"final_fit.retrain": False}, {"final_fit.time_limit": "2h"}, {"final_fit.from": 1},
            {"export.min_improvement": 0.01}, {"schedule": None},
            {"timezone": "Europe/Berlin"},
        ]  # fmt: skip
        hashes = [study_spec(with_values(values)).spec_hash for values in variants]

        for one, other in itertools.combinations(hashes, 2):
            assert one != other

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("data.label", "Label"),
            ("data.split", "random"),
            ("data.validation_fraction", 0.3),
            ("data.test_fraction", 0.1),
            ("search.seed", 1),
        ],
    )
    def test_what_makes_scores_incomparable_changes_the_generation(
        self, path: str, value: object
    ) -> None:
        changed = study_spec(with_values({path: value}))

        assert changed.generation_key != study_spec(MINIMAL).generation_key

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("data.source", "moved.csv"),
            ("data.images", "images"),
            ("search.workers", 8),
            ("search.time_limit", "8h"),
            ("search.max_trials", 3),
            ("final_fit.retrain", False),
            ("final_fit.from", 1),
            ("schedule", "@daily"),
            ("timezone", "Europe/Berlin"),
        ],
    )
    def test_other_changes_continue_the_generation(self, path: str, value: object) -> None:
        changed = study_spec(with_values({path: value}))

        assert changed.generation_key == study_spec(MINIMAL).generation_key

    @given(
        workers=st.integers(1, 64),
        seed=st.integers(0, 2**63 - 1),
        seconds=st.integers(1, 10**6),
        size=st.just("auto") | st.integers(4, 1024),
        fraction=st.floats(0.01, 0.7),
    )
    def test_the_canonical_text_is_read_back(
        self, workers: int, seed: int, seconds: int, size: str | int, fraction: float
    ) -> None:
        values = {
            "search.workers": workers,
            "search.seed": seed,
            "search.time_limit": f"{seconds}s",
            "data.image_size": size,
            "data.validation_fraction": fraction,
        }
        spec = study_spec(with_values(values))

        again = study_spec(json.loads(spec.canonical()))

        assert again == spec
        assert again.canonical() == spec.canonical()


def test_generations_are_those_of_earlier_releases() -> None:
    """The keys of what was hashed before are hashed as they were."""
    spec = study_spec(with_values({"data.label": "Label", "search.seed": 3}))
    parts = [
        "image_classification", "accuracy", "Label", "stratified", None, None, 0.2, 0.2, None, 3,
    ]  # fmt: skip

    assert spec.generation_key == hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def test_a_specification_of_an_earlier_release_is_read() -> None:
    stored = json.loads(study_spec(MINIMAL).canonical())
    stored["final_fit"]["ensemble"] = 1
    for key in ("columns", "weights", "max_pixels", "small_classes", "corrections"):
        del stored["data"][key]
    del stored["export"]["sign"]

    spec = study_spec(stored, purpose=Purpose.ESTIMATOR)

    assert spec.generation_key == study_spec(MINIMAL).generation_key
    assert spec.final_fit.ensemble == 1


def test_the_formats_page_lists_every_key_and_no_other() -> None:
    listed, prefix = set(), ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = re.fullmatch(r"## `(\w+)`", line)
            prefix = f"{section[1]}." if section else ""
        elif row := re.match(r"\| `([\w.]+)` \| (.*)", line):
            path = f"{prefix}{row[1]}"
            if not row[2].startswith("section"):
                listed.add(path)

    assert listed == set(known_keys())
