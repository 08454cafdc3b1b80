"""``unspool report``: results of ``prove``, ``bench`` and ``tradeoff`` as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Files written by `unspool bench`, `prove` or `tradeoff` with --json.")
    ],
    html: Annotated[Path, typer.Option("--html", help="The HTML file to write.")],
) -> None:
    """Write one HTML file that shows results: charts, tables, how they were measured. It needs no network to open.

    Several benchmarks of the same model and suite are also set side by side, to see how far their ratios lie apart.

    Examples:

      unspool report bench.json --html report.html

      unspool report proof.json first.json second.json --html report.html
    """
    from unspool.report.read import read
    from unspool.storage.text_files import check_file

    # Mistakes are told before matplotlib is loaded.
    check_file(html, *results)
    read_results = [read(path) for path in results]
    from unspool.report.page import write

    write(read_results, html)
    typer.echo(f"wrote {html}", err=True)
