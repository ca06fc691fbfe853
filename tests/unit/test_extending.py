"""Guides for those who extend the platform: their examples run, and their quotations are exact."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from automl.tracks import track

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "extending"
EXAMPLES = ("search-space", "searcher")
NUMERIC = ("tests/numeric/__init__.py", "tests/numeric/track.py")
ENTRY_POINTS = "tests/installed/numeric_track-1.dist-info/entry_points.txt"
LINKING = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")
PROTOCOLS = (track.Track, track.Dataset, track.Fitter, track.Hooks, track.Scores, track.Memory)
OUTPUT = re.compile(r"seed (\d): (\w+) (\S+), random (\S+)")


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def blocks(name: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)


def write_example(name: str, folder: Path) -> Path:
    """Write the blocks of a page as one module, and return its path."""
    path = folder / f"extending_{name.replace('-', '_')}.py"
    path.write_text("\n\n".join(blocks(name)))
    return path


def example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the example of a page anew."""
    path = write_example(name, folder)
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop(path.stem, None)
    return importlib.import_module(path.stem)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_its_page_shows(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(write_example(name, tmp_path))],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    (shown,) = (OUTPUT.findall(block) for block in blocks(name, "text"))
    printed = OUTPUT.findall(done.stdout)
    assert len(printed) == len(shown) == len(done.stdout.splitlines()) == 3
    if name == "searcher":
        assert printed == shown
    else:  # a Gaussian process may round otherwise on another CPU, and says so
        assert [(seed, drawn) for seed, _, _, drawn in printed] == [
            (seed, drawn) for seed, _, _, drawn in shown
        ]
        for _, _, found, drawn in [*printed, *shown]:
            assert float(found) < float(drawn)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_tests_that_a_page_recommends_pass(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example(name, tmp_path, monkeypatch)
    tests = [one for key, one in vars(module).items() if key.startswith("test_")]

    assert len(tests) == 5
    for test in tests:
        test()


def test_the_space_has_as_many_candidates_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("search-space", tmp_path, monkeypatch)

    widths, rates = len(module.WIDTHS), len(module.RATES)
    count = rates * sum(widths**depth for depth in range(1, 5))

    assert f"all {count} candidates" in page("search-space")
    assert module.SPACE.contains(module.BEST)
    assert module.loss_of(module.BEST) == 0
    assert not module.SPACE.contains(module.chain([4] * 5, 1e-3))
    assert not module.SPACE.contains(module.chain([5], 1e-3))


def test_every_block_about_the_track_is_quoted() -> None:
    sources = "".join((ROOT / name).read_text() for name in NUMERIC)

    quoted = blocks("track")
    assert len(quoted) > 10
    assert [block for block in quoted if block not in sources] == []
    assert blocks("track", "ini") == [(ROOT / ENTRY_POINTS).read_text()]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_every_member_of_the_protocol_is_named(protocol: type) -> None:
    members = [name for name in vars(protocol) if not name.startswith("_")]

    text = page("track")
    assert members
    assert [name for name in members if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("name", ["README", "track", *EXAMPLES])
def test_what_a_page_points_to_exists(name: str) -> None:
    text = page(name)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    paths = re.findall(r"`((?:automl|benchmarks|docs|tests)/[\w./-]*)`", text)

    assert links
    assert paths
    assert [link for link in links if not (PAGES / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", LINKING)
def test_the_guides_are_linked(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())

    assert PAGES in {(path.parent / link).resolve() for link in links if "://" not in link}
