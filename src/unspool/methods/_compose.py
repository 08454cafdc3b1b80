"""Parts of the denoise loop by name: ``credit+threshold+adablock``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unspool import methods
from unspool.engine.canvas import CanvasConstraint
from unspool.engine.canvas_request import Parts
from unspool.engine.method import SCHEDULE, STOP, TRANSFORM, UNMASK, Kind
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods import Resources, Row

DEFAULTS: dict[Kind[Any], str] = {UNMASK: "threshold", SCHEDULE: "fixed_blocks"}
"""What fills a slot of the loop for which no method is named."""

Values = Mapping[str, Mapping[str, Any]]


def chosen(names: str) -> list[Row]:
    """The rows of the registry that ``names``, joined by ``+``, mean.

    Raises:
        UnknownNameError: for a name that no part of the denoise loop has.
        UnspoolError: if two of them fill the same slot; only transforms can be several.
    """
    known = {name: method for name, method in methods.methods().items() if method.kind.on_canvas}
    rows: dict[str, Row] = {}
    for name in (part.strip() for part in names.split("+")):
        if name not in known:
            raise UnknownNameError("method for canvases", name, known)
        for other in rows.values():
            if name == other.name or (known[name].kind == other.kind is not TRANSFORM):
                raise UnspoolError(f"{name} and {other.name} both fill the slot {other.kind.name!r}; take one of them")
        rows[name] = known[name]
    return list(rows.values())


def composed(
    names: str,
    surroundings: Resources,
    values: Values | None = None,
    constraint: CanvasConstraint | None = None,
) -> Callable[[], Parts]:
    """Makes new parts for each canvas.

    Args:
        names: of methods, joined by ``+``; see ``DEFAULTS`` for the slots that they leave open.
        values: options of each method, by its name.

    Raises:
        UnspoolError: for names or options that do not exist or do not go together.
    """
    rows = chosen(names)
    taken = {row.kind for row in rows}
    rows += [methods.find(name, kind) for kind, name in DEFAULTS.items() if kind not in taken]
    for name in values or {}:
        if name not in {row.name for row in rows}:
            raise UnknownNameError("method with options", name, [row.name for row in rows])
    made = [(row, methods.make_options(row, (values or {}).get(row.name, {}))) for row in rows]

    def parts() -> Parts:
        by_kind: dict[Kind[Any], list[Any]] = {}
        for row, options in made:
            by_kind.setdefault(row.kind, []).append(row.build(surroundings, options))
        return Parts(
            policy=by_kind[UNMASK][0],
            schedule=by_kind[SCHEDULE][0],
            transforms=by_kind.get(TRANSFORM, []),
            stop=next(iter(by_kind.get(STOP, [])), None),
            constraint=constraint,
        )

    parts()  # what does not fit the model is told now
    return parts
