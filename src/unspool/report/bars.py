"""Two kinds of horizontal bars for several sections: with quartiles, and stacked shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unspool.bench.result import Spread
from unspool.report.drawing import CARD, GRID, TEXT, Canvas, Look
from unspool.report.words import number, share

_BAR, _LINE = 30, 15


@dataclass(frozen=True)
class Bar:
    """A bar, with quartiles if it has any.

    Attributes:
        label: to its left.
        value: text to its right.
        solid: filled; peers are outlined.
    """

    label: str
    value: str
    spread: Spread
    look: Look
    solid: bool = True


def wrapped(label: str, narrow: bool) -> str:
    """A label wrapped into lines that leave space for the chart; may break at underscores."""
    lines = textwrap.wrap(label.replace("_", "_ "), 15 if narrow else 26)
    return "\n".join(lines).replace("_ ", "_")


def bars_height(labels: Sequence[str], legend: float = 48) -> Callable[[bool], float]:
    """Height in pixels for one bar per label."""

    def height(narrow: bool) -> float:
        return sum(max(_BAR, _LINE * wrapped(label, narrow).count("\n") + _BAR) for label in labels) + legend

    return height


def draw_bars(canvas: Canvas, bars: Sequence[Bar], unit: str) -> None:
    """Bars from 0 to the median, a line between the quartiles, and the value as text."""
    axes = canvas.axes
    axes.grid(axis="x")
    for y, bar in enumerate(bars):
        (patch,) = axes.barh(
            y,
            bar.spread.median,
            height=0.62,
            color=bar.look.colour if bar.solid else CARD,
            edgecolor=bar.look.colour,
            linewidth=1.5,
        )
        canvas.tip(patch, f"{bar.label}: {bar.value}")
        if bar.spread.low < bar.spread.high:
            # An outline in the card's colour keeps it visible on the bar.
            for width, colour in ((4.5, CARD), (1.5, TEXT)):
                axes.plot([bar.spread.low, bar.spread.high], [y, y], color=colour, lw=width, solid_capstyle="butt")
        axes.annotate(
            bar.value,
            (max(bar.spread.median, bar.spread.high), y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(bars)), [wrapped(bar.label, canvas.narrow) for bar in bars])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    # Space for the values: approximate pixels of the axes and of a letter.
    pixels, letter = (230, 8) if canvas.narrow else (700, 8)
    ends = [bar.spread.high * pixels / (pixels - 10 - letter * len(bar.value)) for bar in bars]
    axes.set_xlim(0, max(ends) or 1)
    axes.locator_params(axis="x", nbins=4 if canvas.narrow else 8)
    axes.set_xlabel(unit)


def draw_stacked(
    canvas: Canvas, rows: Mapping[str, Mapping[str, int]], look: Mapping[str, Look], hatch: Mapping[str, str]
) -> None:
    """Each row as a whole, divided among the keys of ``look``; large shares are written into the bar.

    Args:
        hatch: matplotlib hatches for keys that colour alone must not distinguish.
    """
    axes = canvas.axes
    for y, (label, counts) in enumerate(rows.items()):
        total, left = sum(counts.values()) or 1, 0.0
        for name, one in look.items():
            width = counts.get(name, 0) / total
            if not width:
                continue
            (patch,) = axes.barh(
                y, width, left=left, height=0.62, color=one.colour, edgecolor=CARD, linewidth=1.5, hatch=hatch.get(name)
            )
            canvas.tip(patch, f"{label}: {name} {share(width)} ({number(counts[name], 0)})")
            if width >= (0.16 if canvas.narrow else 0.08):
                # On its own label: no text colour has enough contrast with every hue.
                label_box = {"boxstyle": "round,pad=0.2", "facecolor": CARD, "edgecolor": "none"}
                text = f"{100 * width:.0f}\u202f%"
                axes.text(left + width / 2, y, text, ha="center", va="center", fontsize=11, bbox=label_box)
            left += width
    axes.set_yticks(range(len(rows)), [wrapped(label, canvas.narrow) for label in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50\u202f%", "100\u202f%"])
    for side in axes.spines.values():
        side.set_color(GRID)
    axes.spines["left"].set_visible(False)
