"""The command line. Every command prints its result on stdout and its progress on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from unspool import __version__
from unspool.cli import (
    bench,
    calibrate,
    check,
    datastore,
    edit,
    extract,
    generate,
    methods,
    models,
    prove,
    report,
    reproduce,
    sample,
    search,
    tradeoff,
    train,
    view,
)
from unspool.cli.command import App
from unspool.engine.cpu import usable_cores
from unspool.errors import UnspoolError

_UsageError: Any = typer.BadParameter.__base__
"""Of click, which typer bundles under another name since 0.2x."""

app = App(
    name="unspool",
    help="Decode language models by every published method: get the same text sooner, or a better text, "
    "with proof of which of the two it is.\n\n"
    "Results go to standard output, progress to standard error. Exit codes: 0 success; 1 a fault that "
    "`prove` or `check` found; 2 an error in the call or its environment, reported in one line; 3 a text that was cut "
    "before it matched its schema, regex, grammar or choices; 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("search")(search.search)
app.command("sample")(sample.sample)
app.command("edit")(edit.edit)
app.command("extract")(extract.extract)
app.add_typer(models.app, name="models")
app.command("methods")(methods.list_methods)
app.command("check")(check.check)
app.command("calibrate")(calibrate.calibrate)
app.command("prove")(prove.prove)
app.command("bench")(bench.bench)
app.command("tradeoff")(tradeoff.tradeoff)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("view")(view.view)
app.add_typer(datastore.app, name="datastore")
app.command("train")(train.train)


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
    """Entry point: a user's error becomes one line on stderr and exit code 2; see ``unspool --help``."""
    _prepare_streams()
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))  # torch would ignore a container's quota
    try:
        code = app(prog_name="unspool", standalone_mode=False) or 0
        sys.stdout.flush()
    except UnspoolError as error:
        code = _failed(2, str(error))
    except _UsageError as error:
        code = _failed(2, _usage(error)) if error.format_message() else 2  # without a message the help was printed
    except (BrokenPipeError, SystemExit):
        # The reader of the pipe closed it. typer raises SystemExit; Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        file = f"{error.filename}: " if error.filename is not None else ""
        code = _failed(2, f"{file}{error.strerror or error}", error)
    except MemoryError as error:
        code = _failed(2, "out of memory; use a smaller model or weights of fewer bits (--weights int4)", error)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        code = _failed(1, f"internal error: {what} (please report it; UNSPOOL_TRACEBACK=1 shows where)", error)
    sys.exit(code)


def _prepare_streams() -> None:
    """Replace characters that the terminal's encoding lacks: by ``?`` on stdout, by an escape on stderr.

    A stream that the caller has closed is None in Python; it is replaced by one that discards everything.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)


def _usage(error: Any) -> str:
    where = error.ctx.command_path if error.ctx else "unspool"
    return f"{error.format_message().rstrip('.')}; see {where} --help"


def _failed(code: int, message: str, error: BaseException | None = None) -> int:
    """Print one line; with ``UNSPOOL_TRACEBACK`` also where an unexpected ``error`` came from."""
    if error is not None and os.environ.get("UNSPOOL_TRACEBACK"):
        traceback.print_exception(error)
    print(f"unspool: {' '.join(message.split())}", file=sys.stderr)
    return code
