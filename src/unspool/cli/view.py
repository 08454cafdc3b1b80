"""``unspool view``: show one trace, or two side by side, in the browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from unspool.storage.text_files import check_file


def view(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace written by `unspool generate --trace`.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Second trace, shown beside the first.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file. Default: beside the trace.", show_default=False)
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Write the page without opening it.")] = False,
) -> None:
    """Show a trace: where each token came from, its alternatives, and the token tree of every pass with its times.

    The page is one file that needs no server and no network. Its path is printed.

    Examples:

      unspool view run.jsonl

      unspool view plain.jsonl auto.jsonl --html both.html --no-open
    """
    print(write_page([trace] if other is None else [trace, other], html, open_it=not no_open))


def write_page(traces: Sequence[Path], path: Path | None = None, open_it: bool = True) -> Path:
    """Write the page of one or two trace files, beside the first one by default, and open it in the browser.

    Returns:
        The file of the page.
    """
    from unspool.trace import file as trace_file
    from unspool.trace.viewer import page

    path = path or page.page_path(traces[0])
    check_file(path, *traces)
    page.save(path, [trace_file.read(trace) for trace in traces], [str(trace) for trace in traces])
    if open_it and not page.show(path):
        print("no browser was found; open the page yourself", file=sys.stderr)
    return path
