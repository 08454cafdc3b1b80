"""``unspool reproduce``: test claims of papers on this machine, each against a control that could win."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unspool.cli.common import Status, bars, print_json
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from rich.console import Console

    from unspool.reproduce.experiment import Experiment
    from unspool.reproduce.result import ExperimentResult
    from unspool.storage.journal import Journal

_ALL = "all"


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of experiments, or all. Without a name, experiments are listed.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model to use. Default: the experiment's own.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Number of prompts or questions. Default: the experiment's own.", show_default=False),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Prompts that replace the experiment's own, given as for `unspool bench --suite`.", show_default=False
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Run a few cases on a small model, to check that it works; gives no verdict."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with the result in --output and write nothing; exit code 1 if it is worse."
        ),
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Directory of results; each is NAME-MODEL.json.", file_okay=False)
    ] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as a JSON list.")] = False,
) -> None:
    """Test claims of papers. Each experiment has a control that could win and an expectation stated in advance.

    The outcome is computed from the figures and their 95 % intervals: held, partly, absent, or not measurable here.
    Finished cases are saved beside the result; after Ctrl-C, the same command resumes. Exit code 1 if an experiment
    fails, a requirement is broken, or, with --check, an outcome is worse than the one on file.

    Examples:

      unspool reproduce

      unspool reproduce token_recycling

      unspool reproduce all --quick
    """
    from rich.console import Console

    from unspool import experiments

    if not names:
        _list(Console(), as_json)
        return
    if quick and check:
        raise UnspoolError("--quick gives no verdict for --check to compare; use one of them")
    chosen = experiments.names() if names == [_ALL] else names
    if _ALL in chosen:
        raise UnspoolError("all cannot be combined with names; use either all or names")
    if twice := next((name for name in chosen if chosen.count(name) > 1), None):
        raise UnspoolError(f"{twice!r} is named twice; name it once")
    found = [experiments.find(name) for name in chosen]
    if suite is not None:
        from unspool import suites

        suites.load(suite)
    if not quick and not check:
        _check_directory(output)
    console = Console(stderr=as_json)
    results: list[ExperimentResult] = []
    failed = False
    finished = _finished(names, output, quick or check, [model, limit, suite])
    for experiment in found:
        if {"done": experiment.name} in finished.lines:
            typer.echo(f"{experiment.name}: already done", err=True)
            continue
        try:
            result, worse = _run(experiment, model, limit, suite, quick, None if quick else output, check, console)
        except UnspoolError as error:
            if len(found) == 1:
                raise
            failed = True
            typer.echo(f"unspool: {experiment.name}: {error}", err=True)
            continue
        results.append(result)
        finished.add({"done": experiment.name})
        failed = failed or worse or (result.outcome == "invalid" and not quick)
    finished.remove()
    if as_json:
        from dataclasses import asdict

        print_json([asdict(result) for result in results])
    if failed:
        raise typer.Exit(1)


def _finished(names: list[str], output: Path, writes_nothing: bool, settings: list[str | int | None]) -> Journal:
    """The experiments that ``all`` has finished; on disk until all are finished."""
    from unspool.storage.journal import Journal

    path = None if names != [_ALL] or writes_nothing else output / "all.partial.jsonl"
    return Journal(path, {"settings": settings}, "--output")


def _run(
    experiment: Experiment,
    model: str | None,
    limit: int | None,
    suite: str | None,
    quick: bool,
    output: Path | None,
    check: bool,
    console: Console,
) -> tuple[ExperimentResult, bool]:
    """The result, and whether it is worse than the one on file."""
    from unspool.bench.about import command_line
    from unspool.reproduce.result import file_name, read, worse, write
    from unspool.reproduce.run import QUICK, run
    from unspool.reproduce.setup import Setup
    from unspool.reproduce.show import show

    name = model or (experiment.quick_model if quick else experiment.model)
    path = None if output is None else output / file_name(experiment.name, name)
    before = None
    if check:
        if path is None or not path.is_file():
            raise UnspoolError(f"there is no {path} to compare with; run `unspool reproduce {experiment.name}` first")
        before = read(path)
    journal = None if path is None or check else path.with_name(f"{path.name}.partial.jsonl")
    with Status() as status, bars() as progress:
        setup = Setup(name, limit or (QUICK if quick else experiment.count), quick, suite, status.say)
        result = run(experiment, setup, command_line(_command(experiment.name)), journal, progress)
    show(experiment, result, console, quick)
    if before is not None:
        console.print(f"on file: {before.outcome} ({before.about['date'][:10]})", highlight=False)
        return result, worse(result.outcome, before.outcome)
    if path is not None and journal is not None:
        write(result, path)
        journal.unlink(missing_ok=True)
        console.print(f"written to {path}", highlight=False)
    return result, False


def _command(name: str) -> list[str]:
    """The command that runs this experiment alone."""
    from unspool import experiments

    known = {_ALL, *experiments.names()}
    return ["reproduce", name, *(word for word in sys.argv[2:] if word not in known)]


def _check_directory(output: Path) -> None:
    from unspool.storage.text_files import check_file

    output.mkdir(parents=True, exist_ok=True)
    check_file(output / "result.json")


def _list(console: Console, as_json: bool) -> None:
    from unspool import experiments

    rows = [experiments.find(name) for name in experiments.names()]
    if as_json:
        print_json([{"name": row.name, "claim": row.claim, "model": row.model, "minutes": row.minutes} for row in rows])
        return
    for row in rows:
        console.print(f"[bold]{row.name}[/bold]  {row.model}, about {row.minutes} minutes", highlight=False)
        console.print(f"  {row.claim}", highlight=False, markup=False)
