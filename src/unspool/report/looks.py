"""Colour and marker of each contestant and token source, the same in all charts of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.methods import PLAIN as PLAIN_NAME
from unspool.report.drawing import HUES, MARKERS, PEER, PLAIN, ROLES, SQUARE, Look
from unspool.report.figures import Figures
from unspool.report.parts import Key

MODEL = "model"


def looks(figures: Figures) -> dict[str, Look]:
    """Colours for methods and drafters, greys for peers and plain decoding; markers help where colours may not."""
    sources = {source for row in figures.overall(figures.methods) for source in row.by_source}
    made = coloured(list(dict.fromkeys([*figures.methods, *sorted(sources - {MODEL, PLAIN_NAME})])))
    shapes = list(MARKERS)
    greys = {name: Look(PEER, shapes[(i + 1) % len(shapes)]) for i, name in enumerate(figures.peers)}
    plain = dict.fromkeys((PLAIN_NAME, MODEL), Look(PLAIN, "o"))
    return made | greys | plain


def coloured(names: Sequence[str]) -> dict[str, Look]:
    """A colour and a marker for each name; the marker changes with the colour, and again with each round of colours."""
    shapes = list(MARKERS)
    return {name: Look(HUES[i % len(HUES)], shapes[(i + i // len(HUES)) % len(shapes)]) for i, name in enumerate(names)}


def colour(look: Look) -> str:
    """The colour as CSS."""
    return f"var(--{ROLES[look.colour]})"


def marker_key(label: str, look: Look, hollow: bool = False) -> Key:
    return Key(label, colour(look), MARKERS[look.marker], hollow)


def area_key(label: str, look: Look) -> Key:
    return Key(label, colour(look), SQUARE)
