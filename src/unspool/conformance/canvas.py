"""Checks of a part of the denoise loop: alone, and beside the parts of other kinds, on arbitrary logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from unspool import methods
from unspool.conformance.canvas_model import Whatever
from unspool.conformance.check import Row, built_in, options_of, require
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.methods import Resources
from unspool.methods._compose import composed

PROMPTS = ([3, 1], [2], [0, 4, 4])
GIVEN = [None, None, 2, None, None, 4, 4, None, None, None, 1, None]
"""A canvas: what is in its slots beforehand, None for a mask."""


@contextmanager
def around(*rows: Row) -> Iterator[Resources]:
    """What parts are built from, with what is trained for the model in its directory."""
    with TemporaryDirectory() as directory:
        for row in rows:
            row.case.prepare(Path(directory))
        yield Resources(delimiters=lambda: [0, 1], directory=Path(directory))


def spec_of(row: Row) -> str:
    """The row with the options of its case."""
    return methods.choose(row.name, row.kind, options_of(row)).spec


def run(
    spec: str, resources: Resources, cache: Cache, temperature: float, rows: int = 1
) -> tuple[list[list[int]], list[CanvasEvent]]:
    """The filled canvases, and all passes."""
    events = list[Event]()
    parts = composed(spec, resources)
    options = CanvasOptions(temperature=temperature, seed=3, cache=cache)
    requests = [CanvasRequest(prompt, GIVEN, parts(), options) for prompt in PROMPTS[:rows]]
    slots = denoise(Whatever(eos_token_id=5), requests, events.append)
    return slots, [event for event in events if isinstance(event, CanvasEvent)]


def filled(spec: str, resources: Resources, cache: Cache, temperature: float) -> None:
    """Require that a canvas is filled, slot by slot, and that what was in it beforehand stays."""
    (slots,), events = run(spec, resources, cache, temperature)
    where = f"{spec}, cache {cache}, temperature {temperature:g}"
    require(all(0 <= token < 6 for token in slots), f"{where}: a mask is left in {slots}")
    kept = all(token == given for token, given in zip(slots, GIVEN, strict=True) if given is not None)
    require(kept, f"{where}: what was given was changed to {slots}")
    committed = sorted(slot for event in events for slot in event.committed)
    masked = [slot for slot, given in enumerate(GIVEN) if given is None]
    require(committed == masked, f"{where}: the slots {masked} were filled as {committed}")
    require(all(event.committed for event in events), f"{where}: a pass fills no slot")
    require(run(spec, resources, cache, temperature)[0] == [slots], f"{where}: the same seed gives another canvas")


def canvases_are_filled(row: Row) -> None:
    """Every masked slot is filled once, each pass fills at least one, and given slots do not change."""
    caches: tuple[Cache, ...] = ("none", "prefix", "dual")
    with around(row) as resources:
        for cache in caches:
            for temperature in (0.0, 0.8):
                filled(spec_of(row), resources, cache, temperature)


def it_fits_the_parts_of_other_kinds(row: Row) -> None:
    """The same is true in combination with every built-in part of another kind."""
    others = [other for other in built_in() if other.kind.on_canvas and other.kind is not row.kind]
    with around(row, *others) as resources:
        for other in others:
            filled(f"{spec_of(row)}+{spec_of(other)}", resources, "prefix", 0.8)


def rows_of_a_batch_equal_the_rows_alone(row: Row) -> None:
    """A canvas is filled as it is alone, whichever others share its passes."""
    with around(row) as resources:
        together, _ = run(spec_of(row), resources, "dual", 0.8, rows=3)
        require(together[:1] == run(spec_of(row), resources, "dual", 0.8)[0], "row 0 of three differs from it alone")
        require(together[:2] == run(spec_of(row), resources, "dual", 0.8, rows=2)[0], "rows of two and three differ")


CHECKS = (canvases_are_filled, it_fits_the_parts_of_other_kinds, rows_of_a_batch_equal_the_rows_alone)
