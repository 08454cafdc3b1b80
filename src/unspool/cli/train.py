"""``unspool train``: what some methods need trained, made for the user's own models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unspool.cli.command import App
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
from unspool.cli.learn_threshold import adadec_threshold
from unspool.cli.train_certainty import certainty
from unspool.engine.cpu import MOST_THREADS
from unspool.errors import UnspoolError, UnsupportedError
from unspool.storage.text_files import check_directory, check_file

app = App(help="Train what some methods need, for your own models.", no_args_is_help=True)


app.command("adadec-threshold")(adadec_threshold)


@app.callback()
def _root() -> None: ...


@app.command("acceptance-head")
def acceptance_head(
    prompts: Annotated[
        Path,
        typer.Option(
            help="JSONL with `prompt` or, as Spec-Bench, `turns`; or a text file, one prompt a line. "
            "The paper used 40 000; every fifth one is held out."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for data, state and head.")],
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first prompts.", show_default=False)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of each continuation.")] = 512,
    temperature: Annotated[float, typer.Option(help="Temperature that the head is for; 0 is greedy decoding.")] = 1.0,
    learning_rate: Annotated[
        float, typer.Option(help="At its peak. With a few hundred prompts there are few steps: 1e-3 then does better.")
    ] = 5e-5,
    num_train_epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Prompts of a training step.")] = 32,
    seed: Annotated[int, typer.Option(help="The same seed gives the same head.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train the head with which `specdec_pp` ends its drafts. It belongs to a pair of models and a temperature.

    The target writes a continuation of every prompt, the draft model drafts along it, and a small head learns from the
    draft model's hidden states which drafted tokens the target would accept. An interrupted run goes on where it ended.

    Example:

      unspool train acceptance-head -m qwen2.5-coder-1.5b --assistant-model qwen2.5-coder-0.5b --prompts prompts.jsonl
      -o head
    """
    from unspool.methods.drafters.specdec_pp.data import DataOptions
    from unspool.methods.drafters.specdec_pp.train import TrainingOptions, train
    from unspool.suites.prompts import read_prompts

    # Mistakes are told before a model is loaded or downloaded.
    if assistant_model is None:
        raise UnsupportedError("an acceptance head belongs to a pair of models; name the draft with --assistant-model")
    data = DataOptions(max_new_tokens, temperature, seed=seed)
    training = TrainingOptions(
        learning_rate=learning_rate, num_train_epochs=num_train_epochs, batch_size=batch_size, seed=seed
    )
    texts = [prompt.text for prompt in read_prompts(prompts)[:limit]]
    if len(texts) < 2:
        raise UnspoolError(f"{prompts} holds one prompt; a head needs at least two, one of which is held out")
    check_directory(output)
    with (
        loaded(
            model, backend, assistant_model=assistant_model, weights=weights, threads=threads, device=device
        ) as target,
        bars() as progress,
    ):
        head = train(target, texts, output, data, training, progress)
    if as_json:
        print_json(head.about)
        return
    held_out = head.about["held_out"]
    auc = "–" if held_out["auc"] is None else f"{held_out['auc']:.3f}"
    typer.echo(f"{output}: AUC {auc}, KL {held_out['kl']:.3f} on {held_out['tokens']} tokens that were held out")
    typer.echo("predicted  accepted  tokens")
    for tokens, predicted, accepted in held_out["reliability"]:
        typer.echo(f"{predicted:9.2f}  {accepted:8.2f}  {tokens:6}")


@app.command("diffusion")
def diffusion(
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for state, model and learning curve.")],
    task_set: Annotated[
        str, typer.Option("--tasks", help="short: lists, sums, functions. long: records, JSON, programs, squares.")
    ] = "short",
    max_steps: Annotated[int, typer.Option(help="Training steps.")] = 6_000,
    batch_size: Annotated[int, typer.Option(help="Canvases of a step.")] = 64,
    hidden_size: Annotated[int, typer.Option(help="Width of the model.")] = 128,
    num_hidden_layers: Annotated[int, typer.Option(help="Layers of the model.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(help="A model of the same shape whose training goes on; give another seed.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="How often tasks are drawn: json=4,latin=2; others count 1.", show_default=False),
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Multiply in bfloat16, twice as fast where the processor can (AVX512-BF16).")
    ] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_THREADS, help="Threads. A step of the short tasks takes some tenths of a second with one."
        ),
    ] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Train a small masked-diffusion model from nothing, on tasks whose examples are made as needed.

    The model is a Hugging Face directory with the layout of its canvas, a model card and the learning curve beside it.
    An interrupted run goes on where it ended. Afterwards the model answers held-out questions, one token a step.

    Example:

      unspool train diffusion -o tiny-diffusion
    """
    from unspool.recipes.tiny_diffusion import card as canvas_card
    from unspool.recipes.tiny_diffusion.train import QUESTIONS, CanvasTrainingOptions, evaluate, train

    options = CanvasTrainingOptions(
        task_set=task_set,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        max_steps=max_steps,
        batch_size=batch_size,
        seed=seed,
        start=None if start is None else str(start),
        bf16=bf16,
    )
    if weights is not None:
        options = replace(options, weights=_weights(weights))
    check_directory(output)
    import torch

    torch.set_num_threads(threads)
    with bars() as progress:
        accuracies = evaluate(train(output, options, progress), options.tasks, progress)
    canvas_card.write(output, options, accuracies, QUESTIONS)
    if as_json:
        print_json({"accuracy": accuracies})
        return
    typer.echo(f"accuracy on {QUESTIONS} held-out questions, one token a step:")
    for name, value in accuracies.items():
        typer.echo(f"{name:16}{value:5.2f}")


def _weights(text: str) -> tuple[tuple[str, float], ...]:
    found = []
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        try:
            found.append((name.strip(), float(value)))
        except ValueError:
            raise UnspoolError(f"--weights is a list such as json=4,latin=2, not {text!r}") from None
        if sum(name.strip() == other for other, _ in found) > 1:
            raise UnspoolError(f"--weights names {name.strip()!r} twice; name it once")
    return tuple(found)


@app.command("unmask-filter")
def unmask_filter(
    model: Annotated[
        str,
        typer.Option("-m", "--model", help="A directory that `unspool train diffusion` wrote."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File for the filter. Default: beside the model.", show_default=False),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, max=100_000, help="Questions of each task that it learns from.")] = 30,
    block_length: Annotated[int, typer.Option(help="Slots of a block.")] = 8,
    max_steps: Annotated[int, typer.Option(help="Training steps.")] = 4000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same filter.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Train the filter of learn2pd: when is a prediction of a masked-diffusion model already final?

    The model decodes questions one token a step, then again with the finished text at hand; the filter learns from the
    confidences which predictions were right. The model stays as it is.

    Example:

      unspool train unmask-filter -m tiny-diffusion -o filter.npz
    """
    import numpy as np

    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.load import load
    from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
    from unspool.methods.diffusion.learn2pd import FILE
    from unspool.methods.diffusion.learn2pd.train import FilterOptions, replay, train
    from unspool.models.diffusion import find, task_set
    from unspool.recipes.tiny_diffusion.train import TASK_SETS

    options = FilterOptions(block_length=block_length, max_steps=max_steps, seed=seed)
    directory = find(model)
    tasks = TASK_SETS[task_set(directory)]
    FixedBlocks(FixedBlocksOptions(block_length)).check(tasks.canvas_length)
    file = output or directory / FILE
    check_file(file)
    rng = np.random.default_rng([seed, 0, 1])
    questions = [tasks.prompt_ids(task.sample(rng).prompt) for task in tasks.tasks for _ in range(prompts)]
    with bars() as progress:
        examples = replay(load(model, expect=DiffusionModel), questions, block_length, progress)
        trained, figures = train(examples, options, progress)
    trained.save(file)
    figures |= {"replay_passes": float(np.mean(examples.passes)), "replay_alike": float(np.mean(examples.alike))}
    if as_json:
        print_json(figures)
        return
    typer.echo(
        f"{file}: loss {figures['loss']:.3f} on {figures['held_out']} blocks that were held out, "
        f"{figures['loss_alone']:.3f} where each slot is seen alone; "
        f"at 0.9 precision {figures['precision']:.2f}, recall {figures['recall']:.2f}"
    )
    typer.echo(
        f"replay with the finished text: {figures['replay_passes']:.1f} passes for {tasks.canvas_length} slots, "
        f"{figures['replay_alike']:.0%} ended in it"
    )


app.command("certainty")(certainty)
