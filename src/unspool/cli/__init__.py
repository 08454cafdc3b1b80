"""The command line. Every command prints what it makes on stdout and what it does on stderr."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unspool import __version__
from unspool.cli import (
    bench,
    calibrate,
    datastore,
    extract,
    frontier,
    generate,
    methods,
    models,
    prove,
    report,
    search,
    train,
    view,
)
from unspool.errors import UnspoolError

app = typer.Typer(
    name="unspool",
    help="Decode language models by every published method: the same text sooner, or a better text, "
    "and the proof of which of the two it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("search")(search.search)
app.command("extract")(extract.extract)
app.add_typer(models.app, name="models")
app.command("methods")(methods.list_methods)
app.command("calibrate")(calibrate.calibrate)
app.command("prove")(prove.prove)
app.command("bench")(bench.bench)
app.command("frontier")(frontier.frontier)
app.command("report")(report.report)
app.command("view")(view.view)
app.add_typer(datastore.app, name="datastore")
app.add_typer(train.app, name="train")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"unspool {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Entry point: errors of the user become one line and exit code 2; typer ends on Ctrl-C with 130."""
    try:
        app(standalone_mode=True)
    except UnspoolError as error:
        print(f"unspool: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of a pipe left; Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
