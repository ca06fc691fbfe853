"""The page of a data report: what it shows, how much of it, and that nothing in it is code."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from automl.data.exhibits import Exhibit, Exhibits, RowName
from automl.data.findings import Finding, FindingKind
from automl.data.issues import Issue, IssueKind, Issues
from automl.data.profile import Bins, Distribution, Scale
from automl.data.snapshot import QuarantinedRow
from automl.doctor.data_charts import MOST_BARS, Histogram, histogram
from automl.doctor.data_issues import Audit
from automl.doctor.data_page import build_page, shortened
from automl.doctor.inspection import Inspection
from automl.domain.data_change import ChangeKind, DataChange
from automl.tracks.image.exhibits import MOST_BYTES, SIDE, picture
from tests.inspections import EVIL, exhibits, extreme, plain

MOST_PAGE_BYTES = 2_000_000


def shown(inspection: Inspection, pictures: Exhibits | None = None) -> str:
    return build_page(inspection, pictures or inspection.exhibits, {}).decode()


def with_issues(*issues: Issue) -> Inspection:
    audit = Audit("pets", "s1", Issues(issues, (0, 0), ()), ("cat", "dog"), (), ())
    return replace(plain(), audit=audit)


def issue(kind: IssueKind, path: str, label: str = "cat", related: str = "") -> Issue:
    return Issue(path, "train", label, "", kind, 1.0, related)


class Elements(HTMLParser):
    """The elements of a page, and whether each has an end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "rect", "path"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"rect", "path"}:
            assert self.open.pop() == tag


def test_a_page_of_nothing_wrong_says_so() -> None:
    page = shown(plain())

    assert "Nothing that a person should look at was found." in page
    assert "gate</bdi> 2 (20.0%)" in page
    assert ">cat</bdi>" in page


def test_names_are_text_wherever_they_stand() -> None:
    inspection = extreme()
    elements = Elements(shown(inspection, exhibits(inspection, "data:image/png;base64,AAAA")))

    assert elements.open == []
    tags = {tag for tag, _ in elements.found}
    assert "script" not in tags
    attributes = {name for _, attributes in elements.found for name in attributes}
    assert not any(name.startswith("on") for name in attributes)
    sources = {attributes.get("src") for tag, attributes in elements.found if tag == "img"}
    assert sources == {"data:image/png;base64,AAAA"}


def test_a_page_links_to_its_own_sections_only() -> None:
    elements = Elements(shown(extreme())).found

    links = [attributes["href"] for tag, attributes in elements if tag == "a"]
    anchors = {f"#{attributes['id']}" for _, attributes in elements if "id" in attributes}
    assert set(links) <= anchors
    assert len(anchors) >= 8
    assert not re.search(r"https?://|@import|url\(", shown(extreme()))


def test_every_picture_has_a_text_and_the_page_a_policy_and_a_viewport() -> None:
    inspection = extreme()
    elements = Elements(shown(inspection, exhibits(inspection, "data:image/png;base64,AA"))).found

    assert all(attributes["alt"] for tag, attributes in elements if tag == "img")
    told = [attributes for tag, attributes in elements if tag == "meta"]
    assert any("default-src 'none'" in (each.get("content") or "") for each in told)
    assert any(each.get("name") == "viewport" for each in told)


def test_a_page_stays_small_whatever_it_is_about() -> None:
    inspection = extreme()
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)

    page = build_page(inspection, exhibits(inspection, picture(noise)), {})

    assert len(page) < MOST_PAGE_BYTES


def test_what_is_left_out_is_counted() -> None:
    page = unescape(shown(extreme(classes=1_000, issues=10_000)))

    assert "and 994 more rows: <code>automl data issues pets --csv FILE</code>" in page
    assert "The 30 largest classes and the 10 smallest of 1,000" in page
    assert "and 4,988 more reasons" in page
    assert "and 480 more pairs" in page
    assert "and 80 more</p>" in page  # changes
    assert "and 24 more statistics: --json has all of them" in page


def test_an_issue_is_shown_with_both_rows_and_what_is_not_shown_has_a_place() -> None:
    pair = issue(IssueKind.NEAR_DUPLICATE_LABELS, "a.png", related="b.png")
    own = RowName("a.png", "train")

    page = shown(with_issues(pair), Exhibits(rows={own: Exhibit(own, "data:x")}))

    assert page.count("<img") == 1
    assert '<div class="unseen">not shown</div>' in page
    assert "Rows that are nearly equal to rows with other labels: 1" in page


def test_a_sealed_label_is_told_as_sealed() -> None:
    page = shown(with_issues(issue(IssueKind.DARK, "a.png", label="")))

    assert "sealed label" in page


def test_problems_begin_with_the_severe_ones() -> None:
    dark, wrong = issue(IssueKind.DARK, "a"), issue(IssueKind.DUPLICATE_LABELS, "b", related="c")
    finding = Finding.of(FindingKind.IGNORED_FILES, "files are no rows", ["x.txt"], 1)
    change = DataChange(kind=ChangeKind.ROWS, message="fewer rows", is_suspicious=True)
    inspection = with_issues(dark, wrong)
    envelope = inspection.envelope.model_copy(
        update={
            "findings": (finding,),
            "quarantined": (
                QuarantinedRow(path="p", reason="no picture: 3 bytes"),
                QuarantinedRow(path="q", reason="no picture: 4 bytes"),
            ),
        }
    )
    problems = replace(inspection, envelope=envelope, changes=(change,)).problems()

    assert [(problem.topic.anchor, problem.is_severe) for problem in problems] == [
        ("changes", True), ("issues", True), ("issues", False), ("left-out", False),
        ("findings", False),
    ]  # fmt: skip
    assert problems[3].message == "rows left out, no picture: 2"


def test_a_track_without_classes_and_audit_has_a_page() -> None:
    bare = plain()
    profile = bare.envelope.profile
    assert profile is not None
    envelope = bare.envelope.model_copy(
        update={"profile": profile.model_copy(update={"rows_per_label": {}})}
    )

    page = shown(replace(bare, envelope=envelope, audit=None))

    assert "all rows" in page
    assert 'id="issues"' not in page
    assert "classes</span>" not in page


@pytest.mark.parametrize("scale", list(Scale))
def test_a_histogram_has_few_bars_that_hold_all_rows(scale: Scale) -> None:
    bins = Bins(scale=scale, size=16.0)
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.lognormal(0, 5, 900), -rng.lognormal(0, 2, 99), [0.0]])
    one, other = Distribution.of(values, bins), Distribution.of(values[:100], bins)

    found = Histogram.of([one, other])

    assert MOST_BARS / 4 < len(found.bounds) <= MOST_BARS + 6
    for shares in found.shares:
        assert len(shares) == len(found.bounds)
        assert sum(shares) == pytest.approx(1.0)
    ends = [each for bounds in found.bounds if bounds is not None for each in bounds]
    assert ends == sorted(ends)


@pytest.mark.parametrize("scale", list(Scale))
@pytest.mark.parametrize("value", [64.0, 3.0, 0.0, -3.0, 1e-3, -7e5])
def test_a_value_is_within_the_bounds_of_its_bin(scale: Scale, value: float) -> None:
    bins = Bins(scale=scale, size=8.0)

    low, high = bins.bounds(int(bins.of(np.array([value]))[0]))

    assert low <= value <= high


def test_quantiles_are_bounds_of_bins() -> None:
    spread = Distribution.of([1, 2, 3, 100], Bins(scale=Scale.LINEAR, size=4.0))

    assert spread.quantile(0.75) == (0.0, 4.0)
    assert spread.quantile(1.0) == (100.0, 104.0)
    with pytest.raises(ValueError, match="no row has a value"):
        Distribution.of([np.nan], spread.bins).quantile(0.5)


def test_a_number_that_all_rows_share_needs_no_chart() -> None:
    same = Distribution.of([64.0] * 5, Bins(scale=Scale.LOG, size=8.0))
    missing = Distribution.of([np.nan] * 5, same.bins)

    assert "64 in all rows" in histogram("height", same, None)
    assert "<svg" not in histogram("height", same, same)
    assert "<svg" in histogram("height", same, Distribution.of([1.0], same.bins))
    assert "5 rows without" in histogram(EVIL, missing, same)


@pytest.mark.parametrize("side", [1, 8, 48, 49, 96, 97, 224])
def test_a_picture_is_a_small_file(side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.uint8)

    uri = picture(noise)

    assert re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", uri)
    assert len(uri) < 4 / 3 * MOST_BYTES + 64
    assert side <= SIDE or "jpeg" in uri


def test_a_long_text_keeps_both_ends() -> None:
    assert shortened("short") == "short"
    assert shortened("a" * 500 + "end", 21) == "a" * 10 + "…" + "a" * 7 + "end"
