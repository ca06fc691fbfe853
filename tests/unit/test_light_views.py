"""Looking at things loads nothing heavy: Airflow's API server imports the views."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "scipy", "sklearn", "onnx", "onnxruntime", "dask", "distributed")
PROGRAM = f"""
import importlib, json, pkgutil, sys
import numpy, pydantic
import automl.views
for module in pkgutil.iter_modules(automl.views.__path__):
    importlib.import_module("automl.views." + module.name)
print(json.dumps({{"heavy": [name for name in {HEAVY} if name in sys.modules]}}))
"""


def test_the_views_load_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == {"heavy": []}
