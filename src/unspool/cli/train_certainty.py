"""``unspool train certainty``: a masked-diffusion model that is sure of more tokens at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unspool.cli.common import bars, print_json
from unspool.engine.cpu import MOST_THREADS
from unspool.storage.text_files import check_directory


def certainty(
    model: Annotated[
        str,
        typer.Option("-m", "--model", help="A directory that `unspool train diffusion` wrote."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for targets, state and model.")],
    beta: Annotated[float, typer.Option(help="Weight of certainty; 0 trains on the model's own answers alone.")] = 2.0,
    questions: Annotated[int, typer.Option(help="Of each task; right answers are what it learns from.")] = 500,
    block_length: Annotated[int, typer.Option(help="Slots of a block.")] = 8,
    max_steps: Annotated[int, typer.Option(help="Training steps.")] = 400,
    batch_size: Annotated[int, typer.Option(help="Canvases of a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Constant.")] = 2e-4,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Threads.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Distil a masked-diffusion model so that it is certain of more tokens at once (dParallel).

    The model answers questions one token a step; a copy of it learns to be certain of the right answers. Decode the
    copy with `entropy_threshold`. An interrupted run goes on where it ended. Afterwards both models answer held-out
    questions.

    Example:

      unspool train certainty -m tiny-diffusion -o tiny-parallel
    """
    from unspool.bench.tradeoff import Setting, measure
    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.load import load
    from unspool.methods.diffusion.entropy_threshold.train import CertaintyOptions, train
    from unspool.models.diffusion import find, task_set
    from unspool.recipes.tiny_diffusion.train import QUESTIONS, TASK_SETS

    options = CertaintyOptions(beta, block_length, questions, max_steps, batch_size, learning_rate, seed)
    source = find(model)
    tasks = TASK_SETS[task_set(source)]
    check_directory(output)
    import torch

    torch.set_num_threads(threads)
    setting = Setting(options.method, options.method)
    with bars() as progress:
        targets = train(source, output, options, progress)
        before, after = (
            measure(load(str(directory), expect=DiffusionModel), tasks, [setting], QUESTIONS)
            for directory in (source, output)
        )
    found: list[dict[str, Any]] = [
        {
            "task": old.task,
            "targets": targets.kept[old.task],
            "accuracy": sum(old.right) / QUESTIONS,
            "accuracy_after": sum(new.right) / QUESTIONS,
            "passes": sum(old.passes) / QUESTIONS,
            "passes_after": sum(new.passes) / QUESTIONS,
        }
        for old, new in zip(before, after, strict=True)
    ]
    if as_json:
        print_json(found)
        return
    typer.echo(f"{QUESTIONS} held-out questions, {options.method}, before -> after:")
    typer.echo(f"{'task':16}{'targets':>8}{'accuracy':>16}{'passes':>16}")
    for row in found:
        accuracy = f"{row['accuracy']:.2f} -> {row['accuracy_after']:.2f}"
        passes = f"{row['passes']:.1f} -> {row['passes_after']:.1f}"
        typer.echo(f"{row['task']:16}{row['targets']:8}{accuracy:>16}{passes:>16}")
