"""``unspool train``: train what a method needs for the user's own models, or a small model from scratch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.cli.common import (
    AssistantOption,
    BackendOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    bars,
    loaded,
    print_json,
)
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.storage.text_files import check_directory

if TYPE_CHECKING:
    from unspool.training.trainer import Trainer

RECIPES = {"diffusion": "unspool.recipes.tiny_diffusion.train"}
"""Models that are trained from scratch: the module with the trainer, by name."""


def train(
    what: Annotated[
        str,
        typer.Argument(
            help="A method that needs training, or `diffusion` for a small model from scratch; with options "
            "of the training: specdec_pp:prompts=FILE,batch_size=8."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Directory for data, state and result. Default: the model's, if the method reads the result there.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train what a method needs for your own models. Its options are on the method's documentation page.

    An interrupted training resumes from --output.

    Example:

      unspool train specdec_pp:prompts=prompts.jsonl -m qwen2.5-coder-1.5b --assistant-model qwen2.5-coder-0.5b -o head
    """
    from unspool import methods
    from unspool.methods.spec import parse
    from unspool.models import diffusion
    from unspool.training.trainer import Job

    # Fail before a model is loaded or downloaded.
    name = parse(what, "training").name
    trainer = find(name)
    options = methods.training_options(name, trainer, what)
    source = None
    if trainer.trains_for == "canvas":
        if model is None:
            raise UnspoolError(f"{name} is trained for a masked-diffusion model; give its directory with --model")
        source = diffusion.find(model)
    elif trainer.trains_for == "pair" and assistant_model is None:
        raise UnsupportedError(f"{name} is trained for a pair of models; give the draft model with --assistant-model")
    _check_unused(name, trainer, model=model, assistant_model=assistant_model, weights=weights, device=device)
    if output is None:
        if not trainer.beside or source is None:
            raise UnspoolError(f"training {name} needs a directory for its result; give one with --output")
        output = source
    check_directory(output)
    run = trainer.prepare(Job(output, source, threads), options)
    if trainer.trains_for in ("model", "pair"):
        with loaded(
            model, backend, assistant_model=assistant_model, weights=weights, threads=threads, device=device
        ) as target:
            output.mkdir(parents=True, exist_ok=True)
            with bars() as progress:
                report = run(target, progress)
    else:
        output.mkdir(parents=True, exist_ok=True)
        with bars() as progress:
            report = run(None, progress)
    if as_json:
        print_json(report.figures)
        return
    for line in report.lines:
        typer.echo(line)


_TAKES = {
    "model": {"model", "weights", "device"},
    "pair": {"model", "assistant_model", "weights", "device"},
    "canvas": {"model"},
    "nothing": set[str](),
}
"""The options of the command that apply to each ``trains_for``."""


def _check_unused(name: str, trainer: Trainer[Any], **given: str | None) -> None:
    for option, value in given.items():
        if value is not None and option not in _TAKES[trainer.trains_for]:
            raise UnspoolError(f"training {name} does not take --{option.replace('_', '-')}; leave it out")


def find(name: str) -> Trainer[Any]:
    """The trainer of a method or a recipe.

    Raises:
        UnspoolError: for an unknown name.
    """
    from unspool import methods

    if name in RECIPES:
        found: Trainer[Any] = import_module(RECIPES[name]).TRAINER
        return found
    rows = {row.name: row for row in methods.of_kind()}
    if name not in rows:
        raise UnknownNameError("training", name, [*RECIPES, *(row.name for row in rows.values() if row.trainer)])
    return methods.trainer(rows[name])
