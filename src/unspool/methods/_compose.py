"""Builds the parts of the denoise loop from specs: ``credit:alpha=0.5+threshold+adablock``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unspool import methods
from unspool.engine.canvas import CanvasConstraint
from unspool.engine.canvas_request import Parts
from unspool.engine.method import SCHEDULE, STOP, TRANSFORM, UNMASK, Kind
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods import Chosen, Resources
from unspool.methods.spec import parse, split


def chosen(specs: str) -> list[Chosen[Any]]:
    """The methods that specs joined by ``+`` name: ``credit:alpha=0.5+threshold``.

    Raises:
        UnknownNameError: for a name that is not a part of the denoise loop.
        UnspoolError: if two of them fill the same slot; only transforms can be several.
    """
    known = {row.name: row for row in methods.of_kind() if row.kind.on_canvas}
    found: list[Chosen[Any]] = []
    for text in split(specs, "+"):
        name = parse(text).name
        if name not in known:
            raise UnknownNameError("method for canvases", name, known)
        row = known[name]
        for other in (part.row for part in found):
            if name == other.name or row.kind is other.kind is not TRANSFORM:
                raise UnspoolError(f"{name} and {other.name} both fill the slot {other.kind.name!r}; take one of them")
        found.append(methods.choose(text, row.kind))
    return found


def written(specs: str) -> str:
    """The canonical form of specs joined by ``+``."""
    return "+".join(part.spec for part in chosen(specs))


def composed(specs: str, resources: Resources, constraint: CanvasConstraint | None = None) -> Callable[[], Parts]:
    """A factory that makes new parts for each canvas.

    Args:
        specs: methods joined by ``+``; ``methods.DEFAULTS`` fills the slots that they leave open.

    Raises:
        UnspoolError: for names or options that do not exist or cannot be combined.
    """
    made = chosen(specs)
    taken = {part.row.kind for part in made}
    made += [methods.choose(methods.DEFAULTS[kind], kind) for kind in (UNMASK, SCHEDULE) if kind not in taken]

    def parts() -> Parts:
        by_kind: dict[Kind[Any], list[Any]] = {}
        for part in made:
            by_kind.setdefault(part.row.kind, []).append(part.build(resources))
        return Parts(
            policy=by_kind[UNMASK][0],
            schedule=by_kind[SCHEDULE][0],
            transforms=by_kind.get(TRANSFORM, []),
            stop=next(iter(by_kind.get(STOP, [])), None),
            constraint=constraint,
        )

    parts()  # fail now if something does not fit the model
    return parts
