"""Every key under a home is spelled in `automl/domain/layout.py`, as DESIGN.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import automl
from automl.domain import layout
from automl.domain.layout import AttemptKeys, DatasetKeys, ModelKeys, StudyKeys

PACKAGE = Path(automl.__file__).parent
FOLDERS = ("datasets/", "studies/", "models/", "probes/", "trials/", "runs/", "leases/", "log/")
FILES = {
    layout.MODEL_FILE, layout.SAMPLES_FILE, layout.REPORT_FILE, layout.CLAIM_FILE,
    layout.MANIFEST_FILE, "champion.json", "curve.jsonl", "validation.npz", "export.json",
    "spec.json", "preprocess.onnx", "weights.safetensors", "final-fit.safetensors",
}  # fmt: skip
NO_KEYS = {("training/backbone.py", "models/*.pth")}  # files of an installed package


def test_keys_of_datasets() -> None:
    keys = DatasetKeys("digits")

    assert keys.source("f1") == "datasets/digits/sources/f1.json"
    assert keys.snapshot("s1").envelope == "datasets/digits/s1/manifest.json"
    assert keys.snapshot("s1").preprocess == "datasets/digits/s1/preprocess.onnx"
    assert keys.snapshot("s1").report == "datasets/digits/s1/report.html"
    assert keys.snapshot_of("datasets/digits/s1/manifest.json") == "s1"
    assert keys.snapshot_of("datasets/digits/s1/report.html") is None
    assert keys.snapshot_of("datasets/digits/sources/f1.json") is None
    assert keys.snapshot("s1").shard("train", "0123456789abcdefff") == (
        "datasets/digits/s1/train-0123456789abcdef.safetensors"
    )


def test_keys_of_studies() -> None:
    keys = StudyKeys("digits")

    assert keys.log.version(7) == "studies/digits/log/000000000007.json"
    assert keys.log.segment(100) == "studies/digits/log/segments/000000000100.json"
    assert keys.log.version(100).startswith(keys.log.hundred(123))
    assert not keys.log.version(200).startswith(keys.log.hundred(123))
    assert layout.lease_key(keys.leases, "run") == "studies/digits/leases/run.json"
    assert keys.file("pretrained/ab.safetensors") == "studies/digits/pretrained/ab.safetensors"


def test_keys_of_trials() -> None:
    keys = StudyKeys("digits").trial(3, 2)

    assert keys.curve == "studies/digits/trials/3/2/curve.jsonl"
    assert keys.weights == "studies/digits/trials/3/2/weights.safetensors"
    assert keys.validation == "studies/digits/trials/3/2/validation.npz"
    assert keys.checkpoint(12) == "studies/digits/trials/3/2/checkpoint-12.safetensors"
    assert keys.checkpoint(12).startswith(keys.checkpoints)
    assert AttemptKeys.of(keys.checkpoint(12)) == keys
    assert layout.checkpoint_epoch(keys.checkpoint(12)) == 12


def test_keys_of_runs() -> None:
    keys = StudyKeys("digits").run("local-1")

    assert keys.member(0) == "studies/digits/runs/local-1/weights.safetensors"
    assert keys.member(1) == "studies/digits/runs/local-1/weights-1.safetensors"
    assert keys.export == "studies/digits/runs/local-1/export.json"
    assert keys.specification == "studies/digits/runs/local-1/spec.json"
    assert keys.final_fit() == "studies/digits/runs/local-1/final-fit.safetensors"
    assert keys.final_fit(4) == "studies/digits/runs/local-1/final-fit-4.safetensors"


def test_keys_of_models() -> None:
    keys = ModelKeys("digits")

    assert keys.champion == "models/digits/champion.json"
    assert keys.promotion(2) == "models/digits/promotions/2.json"
    assert keys.file(3, layout.MODEL_FILE) == "models/digits/3/model.onnx"
    assert keys.from_champion(keys.file(3, layout.MODEL_FILE)) == "3/model.onnx"


def test_a_log_names_its_study() -> None:
    keys = StudyKeys("digits")

    assert layout.study_of_log(keys.log.version(0)) == "digits"
    assert layout.study_of_log(keys.log.segment(0)) == "digits"
    assert layout.study_of_log(layout.lease_key(keys.leases, "run")) is None
    assert layout.study_of_log("models/digits/log/1.json") is None


def test_no_other_module_spells_a_key() -> None:
    spelled = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(layout.__file__)
        for line, text in _literals(path)
        if (str(path.relative_to(PACKAGE)), text) not in NO_KEYS
        if text in FILES or text.startswith(FOLDERS) or any(f"/{name}" in text for name in FOLDERS)
    ]

    assert spelled == []


def _literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module, docstrings aside."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Expr)
    told = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, documented)
        for statement in ([node] if isinstance(node, ast.Expr) else node.body[:1])
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value
