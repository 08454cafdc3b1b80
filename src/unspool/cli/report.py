"""``unspool report``: show results of ``prove``, ``bench`` and ``tradeoff`` in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Files written by `unspool bench`, `prove` or `tradeoff` with --json.")
    ],
    html: Annotated[Path, typer.Option("--html", help="HTML file to write.")],
) -> None:
    """Write one HTML file with charts and tables of results and how they were measured. It opens without a network.

    Several benchmarks of the same model and suite are also compared, to show how much their ratios vary.

    Examples:

      unspool report bench.json --html report.html

      unspool report proof.json first.json second.json --html report.html
    """
    from unspool.report.read import read
    from unspool.storage.text_files import check_file

    # Fail before matplotlib is loaded.
    check_file(html, *results)
    read_results = [read(path) for path in results]
    from unspool.report.page import write

    write(read_results, html)
    typer.echo(f"wrote {html}", err=True)
