"""``unspool methods``: list the registry as a table."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer

from unspool.cli.common import print_json
from unspool.errors import UnknownNameError


def list_methods(
    kind: Annotated[
        str | None,
        typer.Option(
            help="Show this kind: drafter, acceptance, batch, shaper, constraint, sampler, search, span, edit, probe, "
            "channel, compressor; for diffusion: unmask, transform, schedule, stop."
        ),
    ] = None,
    guarantee: Annotated[
        str | None,
        typer.Option(help='Show this guarantee: identical, "same distribution", valid, lossy or exact.'),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """List decoding methods and what each guarantees relative to plain decoding. --json also lists their options."""
    from unspool.engine.method import GUARANTEES, KINDS
    from unspool.methods import methods, unavailable

    for value, choices, what in ((kind, KINDS, "kind"), (guarantee, GUARANTEES, "guarantee")):
        if value is not None and value not in choices:
            raise UnknownNameError(what, value, choices)
    rows = [
        method
        for method in methods().values()
        if kind in (None, method.kind.name) and guarantee in (None, method.guarantee)
    ]
    if as_json:
        data = [
            {
                "name": m.name,
                "kind": m.kind.name,
                "guarantee": m.guarantee,
                "summary": m.summary,
                "paper": m.paper,
                "needs": sorted(ability.value for ability in m.needs.abilities),
                "needs_assistant_model": m.needs.assistant,
                "options": _options(m.options),
            }
            for m in rows
        ]
        print_json(data)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "guarantee", "what it does"):
        table.add_column(column, overflow="fold")
    for m in rows:
        table.add_row(m.name, m.kind.name, m.guarantee, m.summary)
    Console().print(table)
    for name, why in unavailable().items():
        print(f"not available: {name}: {why}", file=sys.stderr)


def _options(cls: type[Any]) -> dict[str, Any]:
    return {f.name: None if f.default is MISSING else f.default for f in fields(cls)}
