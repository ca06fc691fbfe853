"""Places that may be read: one spelling for each, and no way out of what is allowed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.facts import Origin
from automl.domain.settings import Settings
from automl.domain.sources import Sources, is_within, place_of
from automl.errors import ConfigError

AIRFLOW = Origin.of("airflow:automl_pets")
SEGMENTS = st.sampled_from(["a", "ab", "b", "home", "..", ".", "", "~"])
PATHS = st.lists(SEGMENTS, max_size=7).map("/".join)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/a/b/../c/", "/a/c"),
        ("//a//c", "/a/c"),
        ("/", "/"),
        ("file:///a/%62", "/a/b"),
        ("file://localhost/a", "/a"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a%2F..", "s3://bucket/a%2F.."),  # S3 decodes nothing
    ],
)
def test_a_place_has_one_spelling(uri: str, place: str) -> None:
    assert place_of(uri) == place
    assert place_of(place) == place


@pytest.mark.parametrize(
    "uri",
    ["http://h/x", "://x", "s3://", "s3:///a", "s3://eve:pw@bucket/a", "s3://b?x/a", "s3://b/a//c",
     "s3://b/a/../c", "s3://b/./c", "file://host/a", "file://", "file:///a?b", "file:///a#b",
     "/a\0b"],
)  # fmt: skip
def test_what_names_no_place_is_refused_without_its_login(uri: str) -> None:
    with pytest.raises(ConfigError, match="Hint") as caught:
        place_of(uri)
    assert "eve" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "root", "expected"),
    [
        ("/data", "/data", True),
        ("/data/x", "/data", True),
        ("/data-secret", "/data", False),
        ("/dat", "/data", False),
        ("/x", "/", True),
        ("s3://b/x", "/", False),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://bucket/a/b", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://bucket", True),
        ("s3://bucket2/a", "s3://bucket", False),
    ],
)
def test_a_place_lies_in_another_by_whole_segments(
    place: str, root: str, *, expected: bool
) -> None:
    assert is_within(place, root) == expected


@given(path=PATHS, prefix=PATHS, home=PATHS)
def test_no_spelling_leads_out_of_the_prefixes_or_into_the_home(
    path: str, prefix: str, home: str
) -> None:
    settings = Settings(f"/r/home/{home}", (f"/r/{prefix}",))
    sources = Sources.of(settings, AIRFLOW)
    try:
        place = sources.place(f"/r/{path}")
    except ConfigError:
        return

    real = os.path.normpath(f"/r/{path}")
    assert Path(place) == Path(real)
    assert Path(real).is_relative_to(os.path.normpath(f"/r/{prefix}"))
    assert not Path(real).is_relative_to(os.path.normpath(settings.home))
    assert not Path(os.path.normpath(settings.home)).is_relative_to(real)


@given(path=PATHS)
def test_what_is_allowed_is_not_refused(path: str) -> None:
    place = os.path.normpath(f"/r/x/{path}")
    sources = Sources.of(Settings("/r/home"), Origin.of("cli"))
    closed = Sources.of(Settings("/r/home", ("/r/x",)), AIRFLOW)
    is_fine = not Path("/r/home").is_relative_to(place) and not place.startswith("/r/home")

    assert (sources.problem(place) == "") == (not place.startswith("/r/home"))
    if is_fine and place.startswith("/r/x"):
        assert sources.place(place) == closed.place(place) == place


def test_a_bucket_that_is_the_home_holds_no_sources() -> None:
    sources = Sources.of(Settings("s3://bucket", ("s3://bucket", "s3://other")), AIRFLOW)

    with pytest.raises(ConfigError, match="in AUTOML_HOME"):
        sources.place("s3://bucket/data")
    assert sources.place("s3://other/data/") == "s3://other/data"


def test_what_may_be_read_travels_as_a_value() -> None:
    sources = Sources.of(Settings("/home", ("/data", "s3://bucket/a/")), AIRFLOW)

    assert pickle.loads(pickle.dumps(sources)) == sources  # noqa: S301 - its own
    assert sources == Sources("/home", ("/data", "s3://bucket/a"), is_closed=True)
