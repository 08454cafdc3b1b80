"""The model card of a small masked-diffusion model, and a chart of its learning curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unspool.recipes.tiny_diffusion.directory import CURVE, parameters
from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions
from unspool.storage import cache as store

CARD, PICTURE = "README.md", "curve.svg"


def write(directory: Path, options: CanvasTrainingOptions, accuracies: Mapping[str, float], questions: int) -> None:
    """Write both into the directory that ``recipes.tiny_diffusion.train.train`` wrote.

    Args:
        accuracies: from ``recipes.tiny_diffusion.train.evaluate``.
        questions: number per task.
    """
    points = json.loads((directory / CURVE).read_text("utf-8"))
    card = _card(directory, options, accuracies, questions, points[-1])
    with store.atomic_file(directory / CARD) as part:
        part.write_text(card, encoding="utf-8")
    with store.atomic_file(directory / PICTURE) as part:
        _draw(points, part)


def _card(
    directory: Path,
    options: CanvasTrainingOptions,
    accuracies: Mapping[str, float],
    questions: int,
    last: Mapping[str, float],
) -> str:
    tasks = options.tasks
    rows = [
        f"| {task.name} | {'yes' if task.dependent else 'no'} | {accuracies[task.name]:.2f} |" for task in tasks.tasks
    ]
    return "\n".join(
        [
            f"# {directory.name}",
            "",
            f"A masked-diffusion language model of {parameters(directory):,} parameters for tests and measurements of",
            "decoders. It answers the questions below and knows nothing else.",
            "",
            f"- Architecture: GPT-2 of transformers without the causal mask, {options.num_hidden_layers} layers, "
            f"width {options.hidden_size}.",
            f"- Prompt: at most {tasks.prompt_length} symbols; canvas: {tasks.canvas_length} slots; vocabulary: "
            f"{len(tasks.vocabulary)} symbols.",
            f"- Data: `unspool.recipes.tiny_diffusion.{options.task_set}_tasks`, new for each step, seed {options.seed}"
            "; no third-party text.",
            f"- Training: `unspool train diffusion`, {last['step']:,.0f} steps of {options.batch_size} canvases, "
            f"{last['seconds'] / 60:.0f} min on a CPU, last loss {last['loss']:.4f} nats per masked slot; all options "
            "are in `canvas.json`.",
            "- Licence: Apache-2.0.",
            "",
            "![Loss against steps](curve.svg)",
            "",
            f"Right answers, one token per step by confidence, to {questions} questions not seen in training:",
            "",
            "| task | several right answers | accuracy |",
            "| --- | --- | ---: |",
            *rows,
            "",
        ]
    )


def _draw(points: Sequence[Mapping[str, float]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([point["step"] for point in points], [point["loss"] for point in points], lw=1.2, color="#0f766e")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per masked slot")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file, format="svg", metadata={"Date": None})
