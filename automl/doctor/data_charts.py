"""Charts of a data report: bars of classes, and histograms as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from automl.data.profile import Distribution, Scale

MOST_BARS = 48  # of a histogram
_WIDTH, _HEIGHT, _TOP, _BASE = 320, 120, 14, 100
STYLE = """
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;padding:0;margin:.6rem 0;list-style:none}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.bar{display:grid;grid-template-columns:clamp(4rem,24%,11rem) minmax(0,1fr) 4rem;gap:.7rem;
align-items:center;font-size:14px;line-height:1.6}
.bar bdi{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bar>span:last-child{text-align:right;font-variant-numeric:tabular-nums}
.stack{display:flex;height:.85rem;background:var(--panel);border-radius:3px;overflow:hidden}
.stack i{display:block;height:100%}
.p0{background:var(--p0)}.p1{background:var(--p1)}.p2{background:var(--p2)}
.p3{background:var(--p3)}.p4{background:var(--p4)}.p5{background:var(--p5)}
:root{--p0:#2f6db5;--p1:#e08a1e;--p2:#7d4fb0;--p3:#4f9d69;--p4:#b5475b;--p5:#6b7480}
@media (prefers-color-scheme:dark){:root{--p0:#5b9be0;--p1:#f0a94a;--p2:#a986d8;--p3:#74c08d;
--p4:#dd7a8c;--p5:#99a3ae}}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
gap:1rem 1.6rem}
.charts figure{margin:0}.charts figcaption{font-size:14px}
.charts svg{display:block;width:100%;font-size:11px;margin-top:.3rem}
.charts rect{fill:var(--p0)}.charts .before{fill:none;stroke:var(--p1);stroke-width:1.5}
.charts .axis{stroke:var(--soft);stroke-width:1}
"""
_PARTS = 6  # that have colours of their own


@dataclass(frozen=True, slots=True)
class Histogram:
    """Distributions in the same few bars.

    Attributes:
        bounds: of the bars, from the least value on; None where the axis is broken.
        shares: of each distribution's known rows, by bar.
    """

    bounds: Sequence[tuple[float, float] | None]
    shares: Sequence[Sequence[float]]

    @classmethod
    def of(cls, distributions: Sequence[Distribution], most: int = MOST_BARS) -> Histogram:
        """Return distributions with the same bins in at most so many bars, and two or three more.

        On a logarithmic scale negative values, 0 and positive ones have bars of their own, since
        there is no end of bins between them.
        """
        bins = distributions[0].bins
        places = sorted({place for each in distributions for place in each.counts})
        signs = [0] if bins.scale is Scale.LINEAR else [-1, 0, 1]
        runs = [
            run
            for sign in signs
            if (run := [p for p in places if bins.scale is Scale.LINEAR or _sign(p) == sign])
        ]
        step = max(1, math.ceil(sum(run[-1] - run[0] + 1 for run in runs) / most))
        bounds: list[tuple[float, float] | None] = []
        shares: list[list[float]] = [[] for _ in distributions]
        for run in runs:
            if bounds:
                bounds.append(None)
                for each in shares:
                    each.append(0.0)
            bars = (run[-1] - run[0]) // step + 1
            for bar in range(bars):
                first = run[0] + bar * step
                last = min(first + step - 1, run[-1])
                bounds.append((bins.bounds(first)[0], bins.bounds(last)[1]))
            for each, distribution in zip(shares, distributions, strict=True):
                heights = [0.0] * bars
                for place, rows in distribution.counts.items():
                    if run[0] <= place <= run[-1]:
                        heights[(place - run[0]) // step] += rows / distribution.known
                each += heights
        return cls(bounds, shares)


def _sign(place: int) -> int:
    return (place > 0) - (place < 0)


def histogram(name: str, now: Distribution, before: Distribution | None) -> str:
    """Return a figure of a number's distribution, and of that in the snapshot before.

    Args:
        name: of the number.
        now: how it is distributed.
        before: how it was; None if that is not known, or was counted otherwise.
    """
    title = f"<strong>{escape(name)}</strong>"
    missing = f" · {now.missing:,} rows without" if now.missing else ""
    if not now.known:
        return f"<figure><figcaption>{title}{missing}</figcaption></figure>"
    if now.std == 0 and not missing:
        told = f"{number(now.mean)} in all rows"
        if before is None or (before.std == 0 and before.mean == now.mean):
            return f"<figure><figcaption>{title} {told}</figcaption></figure>"
    else:
        low, high = now.quantile(0.25)[0], now.quantile(0.75)[1]
        told = (
            f"mean {number(now.mean)} ± {number(now.std)} · half of the rows from {number(low)} "
            f"to {number(high)}{missing}"
        )
    found = Histogram.of([now] if before is None or not before.known else [now, before])
    drawing = _drawn(f"{name}: {told}", found)
    return f"<figure><figcaption>{title} {told}</figcaption>{drawing}</figure>"


def _drawn(title: str, found: Histogram) -> str:
    top = max(share for shares in found.shares for share in shares)
    across, scale = _WIDTH / len(found.bounds), (_BASE - _TOP) / top
    bars = "".join(
        f'<rect x="{place * across:.1f}" y="{_BASE - scale * share:.1f}" '
        f'width="{max(across - 0.6, 0.6):.1f}" height="{scale * share:.1f}">'
        f"<title>{number(bounds[0])} to {number(bounds[1])}: {share:.2%}</title></rect>"
        for place, (bounds, share) in enumerate(zip(found.bounds, found.shares[0], strict=True))
        if share and bounds is not None
    )
    line = "".join(
        f"{'L' if place else 'M'}{place * across:.1f},{_BASE - scale * share:.1f}"
        f"H{(place + 1) * across:.1f}"
        for shares in found.shares[1:]
        for place, share in enumerate(shares)
    )
    drawn = f'<path class="before" d="{line}"/>' if line else ""
    first, last = found.bounds[0], found.bounds[-1]
    assert first is not None
    assert last is not None
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>{bars}'
        f'{drawn}<path class="axis" d="M0,{_BASE}.5H{_WIDTH}"/>'
        f'<text x="0" y="10">{top:.0%} of the rows</text>'
        f'<text x="0" y="{_HEIGHT - 6}">{number(first[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 6}" text-anchor="end">{number(last[1])}</text></svg>'
    )


def number(value: float) -> str:
    """Return a number in three digits, without an exponent where it reads well."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


def legend(parts: Mapping[str, int]) -> str:
    """Return what the colours of parts mean, and how many rows each has."""
    total = max(sum(parts.values()), 1)
    entries = (
        f'<li><i class="p{min(place, _PARTS - 1)}"></i><bdi>{escape(part)}</bdi> {rows:,} '
        f"({rows / total:.1%})</li>"
        for place, (part, rows) in enumerate(parts.items())
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def bar(label: str, rows: int, parts: Sequence[tuple[str, int]], most: int) -> str:
    """Return a line of a chart of classes.

    Args:
        label: of the class, as it is shown.
        rows: that it has.
        parts: of them, in the order of the legend; nothing where they are not known.
        most: rows of the largest class.
    """
    pieces = "".join(
        f'<i class="p{min(place, _PARTS - 1)}" style="width:{count / most:.3%}" '
        f'title="{escape(part)}: {count:,}"></i>'
        for place, (part, count) in enumerate(parts or [("rows", rows)])
        if count
    )
    told = ", ".join(f"{part} {count:,}" for part, count in parts if count)
    return (
        f'<div class="bar"><bdi title="{escape(label)}">{escape(label)}</bdi>'
        f'<span class="stack" role="img" aria-label="{escape(told)}">{pieces}</span>'
        f"<span>{rows:,}</span></div>"
    )
