"""``unspool calibrate``: the cost curve of a model on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from unspool.cli.common import (
    BackendOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    bars,
    loaded,
    print_json,
)


def calibrate(
    model: ModelOption = None,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Measure the milliseconds to score 1 to 64 tree nodes, at three context lengths, and save the curve for `auto`.

    `auto` measures on first use, and again when machine, threads, weights or versions change. Run this to measure
    again, for example because the machine was busy.
    """
    from unspool.storage import cache as store

    store.make_directory(store.calibration_dir())  # fail before the work if the cache cannot be written
    with loaded(model, backend, weights=weights, threads=threads, device=device) as decoder:
        from rich.console import Console
        from rich.table import Table

        with bars() as progress:
            curve = decoder.cost_curve(progress, fresh=True)
        settings = decoder.language_model.settings
    if as_json:
        print_json({"model": decoder.name, "settings": settings, "curve": asdict(curve)})
        return
    table = Table(title=f"{decoder.name}: milliseconds per pass ({', '.join(settings.values())})")
    table.add_column("nodes", justify="right")
    for length in curve.lengths:
        table.add_column(f"{length} tokens", justify="right")
        table.add_column("ratio", justify="right", style="dim")
    for i, nodes in enumerate(curve.nodes):
        cells = [cell for row in curve.ms for cell in (f"{row[i]:.1f}", f"{row[i] / row[0]:.2f}")]
        table.add_row(str(nodes), *cells)
    Console().print(table)
