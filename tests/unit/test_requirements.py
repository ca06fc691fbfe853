"""Tests that need real datasets: skipped on a bare machine, failing where CI was promised them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SAMPLE = """
import pytest

from tests.requirements import require


@pytest.fixture(autouse=True)
def needs(request):
    require(request.node)


@pytest.mark.{needs}
def test_something():
    pass
"""


def outcome(
    folder: Path, shared: Path, *, ci: str, named: bool, needs: str = 'needs_shared("pictures")'
) -> str:
    """Return what pytest prints for a test that needs something, the dataset `pictures` or else."""
    checkout = folder / "checkout"
    for name in ("benchmarks/shared_data.py", "tests/requirements.py", "tests/chromium.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        for part in (Path(name).parent / "__init__.py", Path(name)):
            (checkout / part).write_bytes((REPOSITORY / part).read_bytes())
    (checkout / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  needs_shared\n  needs_package\n  needs_browser\n"
    )
    (checkout / "test_sample.py").write_text(SAMPLE.replace("{needs}", needs))
    environment = {k: v for k, v in os.environ.items() if k not in {"CI", "AUTOML_SHARED"}}
    environment |= {"CI": ci} | ({"AUTOML_SHARED": str(shared)} if named else {})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider"],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_bare_machine_skips_with_the_reason(tmp_path: Path, ci: str) -> None:
    shown = outcome(tmp_path, tmp_path / "shared", ci=ci, named=False)

    assert "1 skipped" in shown
    assert f"{tmp_path / 'shared' / 'datasets' / 'pictures'} is not there" in shown


def test_ci_fails_where_the_place_lacks_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "shared" / "datasets" / "others").mkdir(parents=True)

    shown = outcome(tmp_path, tmp_path / "shared", ci="true", named=False)

    assert "1 error" in shown
    assert "CI=true skips nothing that was promised" in shown


def test_ci_fails_where_the_named_place_is_missing(tmp_path: Path) -> None:
    shown = outcome(tmp_path, tmp_path / "elsewhere", ci="true", named=True)

    assert "1 error" in shown
    assert str(tmp_path / "elsewhere") in shown


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_dataset_that_is_there_is_used(tmp_path: Path, ci: str) -> None:
    folder = tmp_path / "shared" / "datasets" / "pictures"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("File Name,Label\n")

    assert "1 passed" in outcome(tmp_path, tmp_path / "shared", ci=ci, named=False)


@pytest.mark.parametrize(
    ("package", "ci", "outcomes"),
    [("no_such_package", "", "1 skipped"), ("no_such_package", "true", "1 error"),
     ("json", "true", "1 passed")],
)  # fmt: skip
def test_a_package_of_an_extra_may_be_missing_but_in_ci(
    tmp_path: Path, package: str, ci: str, outcomes: str
) -> None:
    shown = outcome(
        tmp_path, tmp_path / "shared", ci=ci, named=False, needs=f'needs_package("{package}")'
    )

    assert outcomes in shown
    assert "1 passed" in shown or f"{package}, which comes with an extra, is not installed" in shown


def test_a_browser_may_be_missing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    shown = outcome(tmp_path, tmp_path, ci="true", named=False, needs="needs_browser")

    assert "1 skipped" in shown
    assert "no Chromium is on the PATH" in shown
