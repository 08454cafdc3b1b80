"""One SVG for a README: the headline of a benchmark and everyone's tokens per second.

It is shown as an image, on light or dark pages, by programs of which some support no style sheets. So it has its own
card and light colours, and a media query turns it dark where supported.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from markupsafe import escape

from unspool.bench.result import Bench, Spread
from unspool.errors import UnspoolError
from unspool.methods import PLAIN
from unspool.report.bars import Bar, draw_bars
from unspool.report.bench import figures_of, same_text
from unspool.report.drawing import FONT, LINES, MUTED, ROLES, Canvas, drawn
from unspool.report.figures import Figures
from unspool.report.looks import looks
from unspool.report.theme import DARK, LIGHT
from unspool.report.words import number
from unspool.storage.output import save

_WIDTH, _ROW, _TOP, _BOTTOM = 800, 38, 104, 56
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


def write(bench: Bench, path: Path) -> None:
    """Write the picture.

    Raises:
        UnspoolError: if no run of the benchmark has a speed, or the file cannot be written.
    """
    figures = figures_of(bench)
    if not figures.contestants:
        raise UnspoolError("the benchmark has no run that has a speed; run it with more tokens or prompts")
    title, below = _words(figures)
    text = drawn("picture", lambda: _canvas(figures, title, below))
    save(_finished(text, f"{title}. {below}"), path)


def _words(figures: Figures) -> tuple[str, str]:
    """The headline, and what was measured on which machine."""
    bench, best = figures.bench, figures.fastest()
    machine = bench.about.get("machine", {})
    where = str(machine.get("cpu", ""))
    if machine.get("physical_cores"):
        where += f", {machine['physical_cores']} cores"
    prompts = len({run.prompt for run in bench.runs})
    parts = [f"{bench.model} on {where}" if where else bench.model, f"{prompts} prompts of the suite {bench.suite}"]
    if best is None or best.ratio_totals is None:
        title = f"Decoding speed of {bench.model}"
    elif best.slower:
        title = f"{best.contestant}: {number(best.ratio_totals)} × plain decoding, slower"
    else:
        title = f"{best.contestant}: {number(best.ratio_totals)} × as fast as plain decoding"
    if best is not None:
        parts.append(same_text(bench, best.contestant))
    return title, ". ".join(part.rstrip(".") for part in parts if part) + "."


def _canvas(figures: Figures, title: str, below: str) -> Canvas:
    look = looks(figures)
    speeds = {row.contestant: figures.total_speed(row.contestant) for row in figures.overall(figures.contestants)}
    bars = [
        Bar(
            name,
            number(speed, 1) + (" (slower than plain)" if speed < speeds.get(PLAIN, speed) else ""),
            Spread(speed, speed, speed),
            look[name],
            name not in figures.peers,
        )
        for name, speed in sorted(speeds.items(), key=lambda item: -item[1])
    ]
    lines = textwrap.wrap(below, 104)
    top = _TOP + 18 * (len(lines) - 1)
    height = top + _ROW * len(bars) + _BOTTOM
    canvas = Canvas(height, narrow=False, width=_WIDTH)
    margin = 22
    rect = (margin / _WIDTH, margin / height, 1 - 2 * margin / _WIDTH, 1 - (margin + top) / height)
    canvas.figure.set_layout_engine("constrained", rect=rect)
    draw_bars(canvas, bars, "tokens per second, all tokens ÷ all seconds; outlined: other engines")
    canvas.axes.tick_params(axis="y", labelsize=15)
    for text in canvas.axes.texts:
        text.set_fontsize(15)
    say = canvas.figure.text
    say(margin / _WIDTH, 1 - 44 / height, title, fontsize=24, fontweight="bold")
    say(margin / _WIDTH, 1 - 62 / height, "\n".join(lines), fontsize=13, color=MUTED, va="top", linespacing=1.35)
    return canvas


def _finished(text: str, description: str) -> str:
    """The SVG with its card and colours: light ones inline, dark ones in a style sheet."""
    rules = "".join(
        f'[style*="{what}: {LIGHT[role]}"]{{{what}:{DARK[role]}!important}}'
        for role in sorted(ROLES.values())
        for what in ("fill", "stroke")
    )
    for stand_in, role in ROLES.items():
        text = text.replace(stand_in, LIGHT[role])
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} '
        f'width="{size[1]}" height="{size[2]}" role="img" style="{LINES}" '
        f'aria-label="{escape(description)}">'
        f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
        f'<rect x="0.5" y="0.5" width="{float(size[1]) - 1}" height="{float(size[2]) - 1}" rx="10" '
        f'style="fill: {LIGHT["card"]}; stroke: {LIGHT["grid"]}"/>'
    )
    return head + text[text.index(">") + 1 :].replace(f"'{FONT}'", _FONTS)
