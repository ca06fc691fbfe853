"""The real `python -m automl.steps`, which does without the interpreter's own end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def run(folder: Path, payload: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Return the ended process of a step that there is not, and the document that it wrote."""
    with (folder / "document").open("wb") as document:
        process = subprocess.run(
            [sys.executable, "-m", "automl.steps", "cook"],
            env={**os.environ, "AUTOML_RESULT_FD": str(document.fileno())},
            pass_fds=[document.fileno()],
            input=payload,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return process, (folder / "document").read_text()


def test_an_error_leaves_its_document_and_exit_code(tmp_path: Path) -> None:
    process, document = run(tmp_path, "{}")

    assert process.returncode == 2
    assert "There is no step 'cook'" in process.stderr
    assert json.loads(document)["error"]["type"] == "ConfigError"


def test_a_bug_leaves_its_traceback_and_exit_code_1(tmp_path: Path) -> None:
    process, document = run(tmp_path, "no JSON")

    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("json.decoder.JSONDecodeError")
    assert document == ""
