from __future__ import annotations

from pathlib import Path

import pytest

from automl.domain.settings import Settings
from automl.domain.specification import LOCATION_KEYS
from automl.errors import ConfigError
from automl.runs.context import StepContext
from automl.steps.check import check
from automl.steps.study_file import study_spec


def test_every_place_that_the_data_name_is_checked(tmp_path: Path) -> None:
    spec = study_spec(
        {"name": "cress", "task": "image_classification", "data": {"source": "train.csv"}}
    )
    places = {key: str(tmp_path / key) for key in LOCATION_KEYS}
    spec = spec.model_copy(update={"data": spec.data.model_copy(update=places)})
    (tmp_path / "images").mkdir()
    settings = Settings.from_environment(home=str(tmp_path / "home"))

    with pytest.raises(ConfigError, match="cress cannot be run") as caught:
        check(StepContext.open(settings, spec, "r1", "cli"))

    missing = [problem.path for problem in caught.value.problems]
    assert missing == ["data.source", "data.test_source", "data.corrections"]
    assert not (tmp_path / "home").exists()
