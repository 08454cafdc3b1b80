"""``unspool tradeoff``: measure the accuracy that parallel unmasking costs on a masked-diffusion model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unspool.cli.common import Status, bars, names_of
from unspool.engine.cpu import MOST_THREADS
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from unspool.bench.tradeoff import Tradeoff


def tradeoff(
    model: Annotated[
        str,
        typer.Option("-m", "--model", help="A directory that `unspool train diffusion` wrote."),
    ],
    methods: Annotated[
        str,
        typer.Option(help="Comma-separated: prefixes of swept settings, or specs to measure as given. Default: all."),
    ] = "",
    questions: Annotated[int, typer.Option(min=1, max=100_000, help="Number of held-out questions per task.")] = 50,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report to this file.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Number of torch threads.")] = 1,
) -> None:
    """Measure accuracy against forward passes, for every method over a sweep of its settings.

    The tasks are those that the model was trained on; the questions are held out. Tasks with several right answers are
    reported separately: there, tokens committed in the same pass may contradict each other.

    Examples:

      unspool tradeoff -m tiny-diffusion --html tradeoff.html

      unspool tradeoff -m tiny-diffusion --methods threshold,credit:alpha=0.5+threshold --questions 20
    """
    from unspool.bench.about import about, command_line
    from unspool.bench.tradeoff import Tradeoff, left_out, measure, picked, swept
    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.load import load
    from unspool.models.diffusion import find, task_set
    from unspool.recipes.tiny_diffusion.train import TASK_SETS
    from unspool.storage import cache as store
    from unspool.storage.text_files import check_file

    for file in (json_file, html_file):
        if file is not None:
            check_file(file, html_file if file is json_file else None)
    tasks = TASK_SETS[task_set(find(model))]
    wanted = names_of(methods, "--methods") if methods else []
    settings = picked(wanted) if wanted else swept()
    import torch

    torch.set_num_threads(threads)
    with Status() as status:
        decoder = load(model, expect=DiffusionModel, report=status.say)
    unfit = left_out(settings, decoder)
    settings = [setting for setting in settings if setting.line not in unfit]
    for name in wanted:
        if not any(setting.line.startswith(name) for setting in settings):
            reason = next(reason for line, reason in unfit.items() if line.startswith(name))
            raise UnspoolError(f"{name} cannot be measured with this model: {reason}")
    for line, reason in unfit.items():
        typer.echo(f"{line} is left out: {reason}", err=True)
    start = about()
    with bars() as progress:
        points = measure(decoder, tasks, settings, questions, progress)
    result = Tradeoff(start, command_line(sys.argv[1:]), model, tasks.canvas_length, points)
    if json_file is not None:
        with store.atomic_file(json_file) as temporary:
            temporary.write_text(json.dumps(result.to_json()) + "\n", encoding="utf-8")
    if html_file is not None:
        from unspool.report import page as html

        html.write([result], html_file)
    _show(result)


def _show(result: Tradeoff) -> None:
    from rich.console import Console
    from rich.table import Table

    from unspool.report.tradeoff import FEWEST, KINDS, LOSS, fewest

    console = Console()
    for dependent, words in KINDS.items():
        rows = fewest(result, dependent)
        if not rows:
            continue
        table = Table(title=f"{words}: fewest passes, at most {LOSS:.0%} below one token per step", box=None)
        for column in FEWEST:
            table.add_column(column, overflow="fold", justify="left" if column in FEWEST[:2] else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
