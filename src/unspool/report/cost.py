"""Sections on the components of speed: accepted tokens against the cost of a pass, and the cost curve."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from unspool.bench.summary import ALL
from unspool.methods import PLAIN
from unspool.report.drawing import CARD, GRID, HUES, MARKERS, MUTED, TEXT, Canvas, Look, chart
from unspool.report.figures import Figures
from unspool.report.looks import marker_key
from unspool.report.parts import Section, Table
from unspool.report.words import number, share

_GAINS = (0.5, 1, 1.5, 2, 3, 4, 6, 8)


def accepted_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section:
    """What a pass yields against what it costs."""
    title = "Accepted tokens against cost"
    rows = [row for row in figures.rows if row.passes]
    table = Table(
        "Passes, per category",
        ["category", "contestant", "accepted per pass", "passes", "ms per pass", "÷ plain's pass", "outside the model"],
        [
            [
                row.category,
                row.contestant,
                number(row.mean_accepted_tokens),
                number(row.passes, 0),
                number(figures.pass_ms(row.contestant, row.category), 1),
                number(figures.relative_cost(row.contestant, row.category)),
                share(row.overhead),
            ]
            for row in rows
        ],
        "Accepted: mean accepted tokens per pass (acceptance length), bonus token included; plain decoding has 1. "
        "The cost of a pass includes everything around it. Outside the model: share of time that is not scoring.",
        heads=2,
    )
    points = []
    for row in rows:
        cost = figures.relative_cost(row.contestant, row.category)
        if cost is not None and row.mean_accepted_tokens is not None and row.contestant != PLAIN:
            points.append((row.contestant, row.category, cost, row.mean_accepted_tokens))
    if not points:
        why = "No chart: it needs a method of unspool and plain decoding, which gives the cost of one node."
        return Section(title, [why], tables=[table] if rows else [])
    plot = chart(
        f"{name}-accepted",
        "Mean accepted tokens against the cost of a pass",
        "Each point is a method in a category: on the x axis the cost of its pass relative to plain decoding's, "
        "on the y axis the tokens that a pass emits. Above the line of gain 1 it is faster than plain.",
        lambda narrow: 340 if narrow else 440,
        partial(_draw_accepted, points=points, look=look),
    )
    text = (
        "A pass that costs twice plain decoding's must emit more than two tokens to pay off. Lines join equal gains; "
        "below the line of 1 (shaded) plain decoding is faster. Large points are all prompts, small ones categories."
    )
    keys = [marker_key(method, look[method]) for method in figures.methods]
    return Section(title, [text], keys, plot, [table])


def _draw_accepted(canvas: Canvas, points: list[tuple[str, str, float, float]], look: Mapping[str, Look]) -> None:
    axes = canvas.axes
    left = min(1.0, *(cost for _, _, cost, _ in points)) - 0.08
    right = max(1.0, *(cost for _, _, cost, _ in points)) + 0.12
    bottom = min(1.0, *(accepted for *_, accepted in points)) - 0.1
    top = max(1.0, *(accepted for *_, accepted in points)) * 1.08
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.fill_between([left, right], [left, right], bottom, color=GRID, alpha=0.45, linewidth=0, zorder=0)
    for gain in _GAINS:
        if gain * right <= bottom or gain * left >= top:
            continue
        axes.plot([left, right], [gain * left, gain * right], color=TEXT if gain == 1 else MUTED, lw=1, zorder=1)
        # At the line's end, outside the frame, where there are no points.
        beyond = gain * right > top
        axes.annotate(
            f"{gain:g} ×",
            (top / gain, top) if beyond else (right, gain * right),
            xytext=(0, 4) if beyond else (4, 0),
            textcoords="offset points",
            ha="center" if beyond else "left",
            va="bottom" if beyond else "center",
            color=MUTED,
            annotation_clip=False,
        )
    for method, category, cost, accepted in points:
        one, whole = look[method], category == ALL
        (point,) = axes.plot(
            cost,
            accepted,
            marker=one.marker,
            color=one.colour,
            ms=12 if whole else 7,
            mec=CARD,
            mew=1,
            alpha=1 if whole else 0.75,
            zorder=4 if whole else 3,
        )
        canvas.tip(point, f"{method}, {category}: {accepted:.2f} tokens per pass at {cost:.2f} × plain's pass")
    axes.locator_params(nbins=5)
    axes.set_xlabel("cost of a pass ÷ plain's" if canvas.narrow else "cost of a pass ÷ cost of plain decoding's pass")
    axes.set_ylabel("mean accepted tokens")


def curve_section(name: str, figures: Figures) -> Section:
    """Milliseconds per number of nodes at each context length."""
    title, curve = "Cost curve", figures.bench.curve
    if curve is None:
        return Section(title, ["No chart: no contestant of unspool took part, so no curve was measured."])
    nodes, lengths = list(curve["nodes"]), list(curve["lengths"])
    times = [list(row) for row in curve["ms"]]
    table = Table(
        "Milliseconds of a pass",
        ["nodes", *(f"{length} tokens" for length in lengths)],
        [
            [number(n, 0), *(f"{number(row[i], 1)} ({number(row[i] / row[0])} ×)" for row in times)]
            for i, n in enumerate(nodes)
        ],
        "After a pass of the same width; in brackets, relative to a single-node pass.",
        open=True,
    )
    looks = {length: Look(HUES[i % len(HUES)], list(MARKERS)[i % len(MARKERS)]) for i, length in enumerate(lengths)}
    plot = chart(
        f"{name}-curve",
        "Milliseconds to score a number of nodes",
        "One line for each context length; measured points are marked.",
        lambda narrow: 300 if narrow else 360,
        partial(_draw_curve, nodes=nodes, times=times, looks=list(looks.values()), padded=bool(curve["padded"])),
    )
    padded = " Passes are padded to the measured widths, hence the steps." if curve["padded"] else ""
    text = (
        "The cost to score a tree of n nodes after a context of a given length, on this machine. A pass "
        f"after one of another width costs {number(curve['switch_ms'], 1)} ms more.{padded}"
    )
    keys = [marker_key(f"{length} tokens of context", one) for length, one in looks.items()]
    return Section(title, [text], keys, plot, [table])


def _draw_curve(canvas: Canvas, nodes: list[int], times: list[list[float]], looks: list[Look], padded: bool) -> None:
    axes = canvas.axes
    axes.grid(axis="y")
    axes.set_xscale("log", base=2)
    for row, look in zip(times, looks, strict=True):
        steps = "steps-pre" if padded else "default"
        axes.plot(nodes, row, color=look.colour, lw=2, marker=look.marker, ms=7, mec=CARD, mew=0.8, drawstyle=steps)
    ticks = [2**i for i in range(nodes[-1].bit_length()) if nodes[0] <= 2**i <= nodes[-1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, max(max(row) for row in times) * 1.06)
    axes.set_xlabel("nodes in a pass")
    axes.set_ylabel("milliseconds")
