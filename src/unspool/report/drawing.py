"""Draws with matplotlib for a page that is light or dark.

Charts are drawn in placeholder colours, which become CSS variables in the SVG: one drawing serves both themes. Text
remains text, so that it can be read aloud, searched and copied. Each chart is drawn twice, for wide and narrow screens,
at the size at which it is shown.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unspool.report.parts import Chart

# Displayed size of the SVGs in pixels; report.css says at which page width the wide one is used.
WIDE, NARROW = 880, 360
# Placeholder colours of roles, see theme.py.
TEXT, MUTED, GRID, CARD, PLAIN, PEER, BAD = (f"#01010{i}" for i in range(1, 8))
HUES = tuple(f"#01011{i}" for i in range(6))
ROLES = {TEXT: "text", MUTED: "muted", GRID: "grid", CARD: "card", PLAIN: "plain", PEER: "peer", BAD: "bad"} | {
    hue: f"hue{i}" for i, hue in enumerate(HUES)
}
LINES = "stroke-linejoin: round; stroke-linecap: butt"  # style of all lines of an SVG
FONT = "DejaVu Sans"  # bundled with matplotlib; wide, so that a browser's font fits
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": FONT,
    "font.size": 12.0,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.labelsize": 12.0,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "figure.facecolor": "none",
    "hatch.linewidth": 1.0,
}


@dataclass(frozen=True)
class Look:
    """Appearance of a contestant or token source in every chart: a role's colour and one of ``MARKERS``."""

    colour: str
    marker: str


# matplotlib's marker names, and their outlines for legends in a square from -5 to 5.
MARKERS = {
    "o": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "s": "M-4 -4h8v8h-8z",
    "^": "M0 -4.5l4.5 9h-9z",
    "D": "M0 -5l5 5l-5 5l-5 -5z",
    "v": "M0 4.5l4.5 -9h-9z",
    "P": "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
}
SQUARE = "M-5 -5h10v10h-10z"


class Canvas:
    """A figure being drawn.

    Attributes:
        narrow: whether it is for a narrow screen.
        axes: to draw on.
    """

    def __init__(self, height: float, narrow: bool, width: float | None = None) -> None:
        self.narrow = narrow
        width = width or (NARROW if narrow else WIDE)
        self.figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        self.axes: Axes = self.figure.subplots()
        self._tips: list[str] = []

    def tip(self, artist: Artist, text: str) -> None:
        """Show ``text`` when the pointer is over the artist."""
        artist.set_gid(f"tip{len(self._tips)}")
        self._tips.append(text)

    def svg(self, name: str) -> str:
        """The drawing in placeholder colours; ids inside begin with ``name``."""
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(file, format="svg", metadata=nothing)
        text = file.getvalue()
        text = text[text.index("<svg") :]
        for i, tip in enumerate(self._tips):
            text = text.replace(f'<g id="tip{i}">', f'<g id="tip{i}"><title>{escape(tip)}</title>')
        # A style sheet in one drawing would apply to the whole page; ``LINES`` replaces it.
        text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
        # Only in tags: the user's own names stay unchanged.
        return re.sub(r"<[^>]*>", lambda tag: _shortened(tag[0], name), re.sub(r"\n\s*", "\n", text))


def _shortened(tag: str, name: str) -> str:
    tag = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    # Numbers to a hundredth of a pixel: invisible, and the file is a third smaller.
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def style(name: str) -> dict[Any, Any]:
    """matplotlib's settings for a chart; the same chart always gets the same ids."""
    return {**_STYLE, "svg.hashsalt": name}


def drawn(name: str, make: Callable[[], Canvas]) -> str:
    """The SVG of the drawing that ``make`` returns, in placeholder colours."""
    with mpl.rc_context(style(name)), warnings.catch_warnings():
        # Text in a script that matplotlib's font lacks is measured wrong by some pixels, but the reader's font shows
        # it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        return make().svg(name)


def chart(
    name: str, title: str, description: str, height: Callable[[bool], float], draw: Callable[[Canvas], None]
) -> Chart:
    """A chart for the page.

    Args:
        name: unique on the page, a valid id.
        title, description: for screen readers.
        height: pixels, given whether the screen is narrow.
        draw: draws onto a canvas.
    """

    def one(narrow: bool) -> Markup:
        own = f"{name}-{'narrow' if narrow else 'wide'}"

        def make() -> Canvas:
            canvas = Canvas(height(narrow), narrow)
            draw(canvas)
            return canvas

        text = drawn(own, make)
        for stand_in, css in (
            {c: f"var(--{role})" for c, role in ROLES.items()} | {f"'{FONT}'": "var(--font)"}
        ).items():
            text = text.replace(stand_in, css)
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        assert size is not None
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} '
            f'role="img" style="{LINES}" '
            f'class="{"narrow" if narrow else "wide"}" aria-label="{escape(title)}" aria-describedby="{own}-desc">'
            f'<desc id="{own}-desc">{escape(description)}</desc>'
        )
        # Text in it is escaped, here or by matplotlib.
        return Markup(head + text[text.index(">") + 1 :])

    return Chart(name, one(False), one(True))
