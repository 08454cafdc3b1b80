"""The data that dParallel distils: a model's own correct answers, decoded one token per step in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.engine.canvas import Denoiser
from unspool.engine.canvas_request import CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.top_k import TopK
from unspool.recipes.tiny_diffusion.tasks import Example, Task, TaskSet

FILE = "targets.npz"
_WHAT = "file of targets"
_BATCH = 50


@dataclass(frozen=True)
class Targets:
    """Correct answers.

    Attributes:
        ids: [n, positions] prompts and canvases, with end tokens after the answers.
        kept: by task, number of correct answers.
    """

    ids: NDArray[np.int64]
    kept: dict[str, int]


def make(
    file: Path,
    told: str,
    denoiser: Denoiser,
    tasks: TaskSet,
    questions: int,
    block_length: int,
    seed: int,
    progress: Progress = silent,
) -> Targets:
    """Let the model answer random questions and keep the correct answers; those in ``file`` are not asked again.

    Args:
        told: what the targets depend on, as JSON; a file with any other value is rejected.
        questions: number per task. They are neither the held-out questions nor those of other trainings.

    Raises:
        UnspoolError: if no answer is correct, or the file belongs to another training.
    """
    ids, kept = _stored(file, told, tasks)
    total = questions * len(tasks.tasks)
    for i, task in enumerate(tasks.tasks):
        if task.name in kept:
            continue
        rng = np.random.default_rng([seed, i, 2])  # a key of three numbers gives a separate stream
        examples = [task.sample(rng) for _ in range(questions)]
        rows: list[list[int]] = []
        for first in range(0, questions, _BATCH):
            progress("targets", questions * i + first, total)
            rows += right(denoiser, tasks, task, examples[first : first + _BATCH], block_length)
        kept[task.name] = len(rows)
        ids = np.concatenate([ids, np.array(rows, dtype=np.int64).reshape(len(rows), tasks.length)])
        counts = np.array(list(kept.values()))
        arrays.save(file, _WHAT, {"told": np.array(told), "ids": ids, "kept": counts})
    progress("targets", total, total)
    if not len(ids):
        raise UnspoolError(f"the model answers none of {total} questions correctly; train it longer first")
    return Targets(ids, kept)


def right(
    denoiser: Denoiser, tasks: TaskSet, task: Task, examples: Sequence[Example], block_length: int
) -> list[list[int]]:
    """Prompt and canvas of each correctly answered question; everything after the end becomes end tokens."""
    requests = [
        CanvasRequest(
            tasks.prompt_ids(example.prompt),
            [None] * tasks.canvas_length,
            Parts(TopK(), FixedBlocks(FixedBlocksOptions(block_length))),
        )
        for example in examples
    ]
    answers = [tasks.answer_of(slots) for slots in denoise(denoiser, requests)]
    return [
        tasks.prompt_ids(example.prompt) + tasks.canvas_ids(answer)
        for example, answer in zip(examples, answers, strict=True)
        if task.right(example, answer)
    ]


def _stored(file: Path, told: str, tasks: TaskSet) -> tuple[NDArray[np.int64], dict[str, int]]:
    if not file.exists():
        return np.zeros((0, tasks.length), dtype=np.int64), {}
    said, ids, counts = arrays.load(file, _WHAT, ["told", "ids", "kept"])
    if str(said) != told:
        raise UnspoolError(f"{file} belongs to training with other options; delete it, or use another directory")
    return ids, {task.name: int(count) for task, count in zip(tasks.tasks, counts, strict=False)}
