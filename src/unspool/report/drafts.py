"""Sections on drafts: acceptance by depth in the tree, and the sources of the emitted tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matplotlib.ticker import MaxNLocator

from unspool.report.bars import bars_height, draw_stacked
from unspool.report.drawing import CARD, Canvas, Look, chart
from unspool.report.figures import Figures
from unspool.report.looks import MODEL, area_key, marker_key
from unspool.report.parts import Section, Table
from unspool.report.words import number, share

_FEW = 20


def depth_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section:
    """Share of draft tokens that were accepted, per depth of the tree."""
    title = "Acceptance by depth"
    rows = [row for row in figures.overall(figures.methods) if any(drafted for _, drafted in row.by_depth)]
    if not rows:
        return Section(title, ["No chart: nothing was drafted."])
    deepest = max(len(row.by_depth) for row in rows)
    cells = []
    for depth in range(deepest):
        pairs = [row.by_depth[depth] if depth < len(row.by_depth) else [0, 0] for row in rows]
        cells.append([str(depth + 1), *(f"{share(a / d)} ({a} of {d})" if d else "–" for a, d in pairs)])
    table = Table("Accepted of drafted nodes, per depth, all prompts", ["depth", *(r.contestant for r in rows)], cells)
    lines = {row.contestant: row.by_depth for row in rows}
    plot = chart(
        f"{name}-depth",
        "Share of drafted nodes accepted, by depth",
        "One line per method; the depth is the distance of a drafted node from the last committed token.",
        lambda narrow: 300 if narrow else 360,
        partial(_draw_depth, lines=lines, look=look),
    )
    text = (
        "The share of drafted nodes that became text, by their distance from the last committed token. A tree contains "
        f"alternatives, of which at most one is accepted. Hollow points represent fewer than {_FEW} drafted nodes."
    )
    return Section(title, [text], [marker_key(row.contestant, look[row.contestant]) for row in rows], plot, [table])


def _draw_depth(canvas: Canvas, lines: Mapping[str, list[list[int]]], look: Mapping[str, Look]) -> None:
    axes = canvas.axes
    axes.grid(axis="y")
    for method, by_depth in lines.items():
        one = look[method]
        drawn = [(i + 1, 100 * a / d, d) for i, (a, d) in enumerate(by_depth) if d]
        axes.plot([x for x, _, _ in drawn], [y for _, y, _ in drawn], color=one.colour, lw=2)
        for x, y, d in drawn:
            (point,) = axes.plot(
                x,
                y,
                marker=one.marker,
                color=one.colour,
                mfc=CARD if d < _FEW else one.colour,
                mew=1.5,
                ms=6,
            )
            canvas.tip(point, f"{method}, depth {x}: {y:.1f} % of {d} drafted nodes")
    axes.set_ylim(0, 104)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("depth in the tree")
    axes.set_ylabel("accepted, %")


def source_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section:
    """Emitted tokens by source."""
    title = "Where the tokens come from"
    rows = {row.contestant: row.by_source for row in figures.overall(figures.methods) if row.by_source}
    if not rows:
        return Section(title, ["No chart: no method of unspool took part besides plain decoding."])
    sources = [MODEL, *sorted({source for counts in rows.values() for source in counts} - {MODEL})]
    table = Table(
        "Emitted tokens by drafter, all prompts",
        ["contestant", *sources],
        [[method, *(number(counts.get(source, 0), 0) for source in sources)] for method, counts in rows.items()],
    )
    colours = {source: look[source] for source in sources}
    plot = chart(
        f"{name}-sources",
        "Emitted tokens by drafter",
        "One bar per method, divided among the drafters whose tokens were accepted.",
        bars_height(list(rows), legend=34),
        partial(draw_stacked, rows=rows, look=colours, hatch={}),
    )
    text = "The drafters of the emitted tokens. Tokens of the model are those that no draft contained."
    return Section(title, [text], [area_key(source, look[source]) for source in sources], plot, [table])
