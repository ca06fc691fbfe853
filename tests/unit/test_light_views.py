"""Looking at things loads nothing heavy: Airflow's API server imports the views, a report tells."""

from __future__ import annotations

import subprocess
import sys

from pydantic import BaseModel

HEAVY = ("torch", "scipy", "sklearn", "onnx", "onnxruntime", "dask", "distributed")
MOST_S = 0.2  # of processor time, besides numpy and pydantic
PROGRAM = f"""
import importlib, json, pkgutil, sys, time
import numpy, pydantic
started_s = time.process_time()
import automl.views
for module in pkgutil.iter_modules(automl.views.__path__):
    importlib.import_module("automl.views." + module.name)
seconds = time.process_time() - started_s
loaded = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps({{"seconds": seconds, "loaded": loaded}}))
"""
DRAWING = f"""
import json, sys
from automl.tracks.cards import installed_cards, load
for card in installed_cards().values():
    if card.portrait:
        load(card.portrait)
print(json.dumps({{"seconds": 0, "loaded": [name for name in {HEAVY} if name in sys.modules]}}))
"""


REMARKS = """
import json, sys
import automl.steps.evaluate
from automl.domain.candidate import Candidate
from automl.domain.specification import SearchSection
from automl.domain.trial import Measurement
from automl.morphism.seeds import named_seeds
from automl.tracks.image.track import TRACK
from automl.tracks.track import Ancestor
(seed, *_) = named_seeds(8, 10, 1).values()
candidate = Candidate(genotype=seed.genotype(), hyperparameters={})
TRACK.remarks([Ancestor(0, candidate, None, Measurement())], None, SearchSection(time_limit="1m"))
print(json.dumps({"seconds": 0, "loaded": [name for name in ["torch"] if name in sys.modules]}))
"""


class Import(BaseModel):
    """Imports of a fresh interpreter, and what they took."""

    seconds: float
    loaded: list[str]


def told(program: str) -> Import:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return Import.model_validate_json(done.stdout)


def test_the_views_load_nothing_heavy_and_little_else() -> None:
    imports = [told(PROGRAM) for _ in range(3)]

    assert imports[0].loaded == []
    assert min(one.seconds for one in imports) <= MOST_S


def test_drawing_a_candidate_loads_nothing_heavy() -> None:
    assert told(DRAWING).loaded == []


def test_a_report_is_written_without_torch() -> None:
    assert told(REMARKS).loaded == []
