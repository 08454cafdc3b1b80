"""Sections on speed: ratio to plain decoding, tokens per second, quality."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from unspool.bench.result import Spread, Summary
from unspool.bench.summary import ALL
from unspool.methods import PLAIN
from unspool.report.bars import Bar, bars_height, draw_bars, wrapped
from unspool.report.drawing import CARD, GRID, MUTED, TEXT, Canvas, Look, chart
from unspool.report.figures import Figures
from unspool.report.looks import marker_key
from unspool.report.parts import Cell, Section, Table
from unspool.report.words import number, quartiles, share, times

_STEP, _GAP = 15.0, 20.0
_TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_FEW_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32)


def ratio_cell(row: Summary) -> Cell:
    """The ratio of totals. Slower than plain decoding is stated in words, not only by colour."""
    ratio = number(row.ratio_totals)
    return Cell(f"{ratio} slower", "bad") if row.slower else Cell(ratio)


def ratio_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section:
    """Speed ÷ plain's per category, with quartiles."""
    title = "Speed against plain decoding"
    contestants = [row.contestant for row in figures.overall([*figures.methods, *figures.peers]) if row.ratio]
    if not contestants:
        return Section(title, ["No chart: only plain decoding was measured, so there is no ratio to it."])
    categories = [ALL, *figures.categories]
    table = Table(
        "Speed ÷ plain decoding's, per category",
        ["category", "contestant", "runs", "median", "quartiles", "mean", "ratio of totals"],
        [
            [
                row.category,
                row.contestant,
                number(row.runs, 0),
                number(row.ratio.median if row.ratio else None),
                quartiles(row.ratio),
                number(row.ratio_mean),
                ratio_cell(row),
            ]
            for row in figures.rows
            if row.contestant in contestants
        ],
        "Median, quartiles and mean are over per-prompt ratios (medians over repeats first); the ratio of totals "
        "divides all timed tokens by all seconds.",
        heads=2,
    )
    plot = chart(
        f"{name}-ratio",
        "Speed ratio to plain decoding per category",
        "For each category the median over prompts of the speed divided by plain decoding's, with quartiles. "
        "Points left of 1 are slower than plain.",
        lambda narrow: len(categories) * (len(contestants) * _STEP + _GAP) + 60,
        partial(_draw_ratios, figures=figures, contestants=contestants, categories=categories, look=look),
    )
    keys = [marker_key(f"{name} (peer)" if name in figures.peers else name, look[name]) for name in contestants]
    hollow = marker_key("hollow: slower than plain in total", Look(TEXT, "o"), hollow=True)
    text = (
        "Right of the line at 1 is faster than plain decoding, left of it slower. Points are medians over prompts, "
        "bars the quartiles; the scale is logarithmic."
    )
    return Section(title, [text], [*keys, hollow], plot, [table])


def _draw_ratios(
    canvas: Canvas, figures: Figures, contestants: list[str], categories: list[str], look: Mapping[str, Look]
) -> None:
    axes = canvas.axes
    shown = [
        (row, row.ratio)
        for row in (figures.of(name, category) for category in categories for name in contestants)
        if row is not None and row.ratio is not None
    ]
    low = min(1.0, *(ratio.low for _, ratio in shown)) / 1.1
    high = max(1.0, *(ratio.high for _, ratio in shown)) * 1.1
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvspan(low, 1, facecolor=GRID, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(1, color=TEXT, lw=1.5, zorder=1)
    for side, words in ((-1, "← slower"), (1, "faster →")):
        axes.annotate(
            words,
            (1, 1),
            xycoords=("data", "axes fraction"),
            xytext=(8 * side, 4),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            color=MUTED,
        )
    block = len(contestants) * _STEP + _GAP
    for row, ratio in shown:
        y = categories.index(row.category) * block + contestants.index(row.contestant) * _STEP
        one = look[row.contestant]
        axes.plot([ratio.low, ratio.high], [y, y], color=one.colour, lw=2.5, alpha=0.55, solid_capstyle="butt")
        (point,) = axes.plot(
            ratio.median,
            y,
            marker=one.marker,
            color=one.colour,
            mfc=CARD if row.slower else one.colour,
            mew=1.8,
            ms=7.5,
        )
        slower = ", slower than plain in total" if row.slower else ""
        canvas.tip(
            point,
            f"{row.contestant}, {row.category}: {times(ratio.median)} ({quartiles(ratio)}), "
            f"ratio of totals {number(row.ratio_totals)}{slower}",
        )
    half = (len(contestants) - 1) * _STEP / 2
    axes.set_yticks(
        [i * block + half for i in range(len(categories))],
        [wrapped(category.replace("_", " "), canvas.narrow) for category in categories],
    )
    for i in range(1, len(categories)):
        axes.axhline(i * block - (_STEP + _GAP) / 2, color=MUTED if i == 1 else GRID, lw=1)
    axes.set_ylim(len(categories) * block - _GAP / 2 - _STEP / 2, -_GAP / 2 - _STEP / 2)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    few = canvas.narrow or high / low > 12
    ticks = [tick for tick in (_FEW_TICKS if few else _TICKS) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x")
    axes.set_xlabel("speed ÷ plain" if canvas.narrow else "speed ÷ plain decoding's speed on the same prompt")


def tokens_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section:
    """Tokens per second of all contestants."""
    rows = sorted(figures.overall(figures.contestants), key=lambda row: -row.tokens_per_second.median)
    bars = [
        Bar(
            f"{row.contestant} (peer)" if row.contestant in figures.peers else row.contestant,
            f"{number(row.tokens_per_second.median, 1)}{', slower' if row.slower and row.contestant != PLAIN else ''}",
            row.tokens_per_second,
            look[row.contestant],
            row.contestant not in figures.peers,
        )
        for row in rows
    ]
    plot = chart(
        f"{name}-tokens",
        "Tokens per second of every contestant",
        "Bars are medians over runs, lines the quartiles.",
        bars_height([bar.label for bar in bars]),
        partial(draw_bars, bars=bars, unit="tokens per second"),
    )
    text = (
        "Medians over runs, lines between the quartiles; outlined bars are peers. Speed is measured from the first "
        "emission to the last, without prefill; first token is the time to the first emission."
    )
    table = Table(
        "Tokens per second, median and quartiles, per category",
        ["category", "contestant", "runs", "median", "quartiles", "first token, s"],
        [
            [
                row.category,
                row.contestant,
                number(row.runs, 0),
                number(row.tokens_per_second.median, 1),
                quartiles(row.tokens_per_second, 1),
                number(row.first_seconds),
            ]
            for row in figures.rows
        ],
        heads=2,
    )
    return Section("Tokens per second", [text], [], plot, [table])


def quality_section(name: str, figures: Figures, look: Mapping[str, Look]) -> Section | None:
    """Share of outputs that the suite's checker approves; None without a checker."""
    rows = [row for row in figures.overall(figures.contestants) if row.quality is not None]
    if not rows:
        return None
    bars = []
    for row in rows:
        quality = 100 * (row.quality or 0.0)
        spread, solid = Spread(quality, quality, quality), row.contestant not in figures.peers
        bars.append(Bar(row.contestant, share(row.quality), spread, look[row.contestant], solid))
    plot = chart(
        f"{name}-quality",
        "Share of approved outputs",
        "Per contestant, the share of its outputs that the suite's checker approves.",
        bars_height([bar.label for bar in bars]),
        partial(draw_bars, bars=bars, unit="approved outputs, %"),
    )
    table = Table(
        "Share of outputs that the suite's checker approves, per category with a checker",
        ["category", "contestant", "approved"],
        [[row.category, row.contestant, share(row.quality)] for row in figures.rows if row.quality is not None],
        heads=2,
    )
    text = "Outputs of categories that have a checker, such as a test of the code or a parser of the JSON."
    return Section("Quality", [text], [], plot, [table])
