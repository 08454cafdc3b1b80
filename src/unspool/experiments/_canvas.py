"""Helpers for canvases: held-out questions, answered at swept settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from unspool.decoding.canvas import DiffusionModel
from unspool.engine.canvas_request import CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.errors import UnspoolError
from unspool.methods._compose import composed
from unspool.models.diffusion import find, task_set
from unspool.recipes.tiny_diffusion.tasks import Task, TaskSet, held_out
from unspool.recipes.tiny_diffusion.train import TASK_SETS
from unspool.reproduce.experiment import Case, Row
from unspool.reproduce.setup import Setup

SHORT_MODEL, LONG_MODEL = "tiny-diffusion", "tiny-diffusion-long"

DEPENDENT = ("replace_random", "shuffle", "python_free")
"""Tasks of the short model with several right answers: tokens that are committed together need not go together."""
SQUARES = ("latin", "latin_free")
"""Tasks of the long model that a commit of everything at once gets wrong, with one right answer and with several."""

ONE_BY_ONE = "one by one"
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)

Made = str | Callable[[], Parts]
"""A spec, or a function that builds the parts of the denoise loop."""


def at(values: Sequence[object], spec: str) -> dict[str, Made]:
    """Settings by spec: the spec with each value in place of ``{}``."""
    return {(made := spec.format(value)): made for value in values}


def tasks_of(model: DiffusionModel, names: Sequence[str]) -> tuple[TaskSet, list[Task]]:
    """The tasks of these names, and their set.

    Raises:
        UnspoolError: if the model was trained on other tasks.
    """
    every = TASK_SETS[task_set(find(model.name))]
    known = {task.name: task for task in every.tasks}
    if missing := [name for name in names if name not in known]:
        raise UnspoolError(f"{model.name} was not trained on the task {missing[0]}; leave -m out")
    return every, [known[name] for name in names]


def answers(model: DiffusionModel, tasks: Sequence[str], made: Made, count: int, **options: Any) -> list[Row]:
    """Let a method answer the first ``count`` held-out questions of each task.

    Args:
        options: of ``CanvasOptions``.

    Returns:
        By task ``right``, ``passes`` and ``fed`` (positions that all passes scored), one value a question.
    """
    every, chosen = tasks_of(model, tasks)
    parts = composed(made, model.resources()) if isinstance(made, str) else made
    settings = CanvasOptions(**options)
    rows = []
    for task in chosen:
        examples = held_out(task, count)
        passes: Counter[int] = Counter()
        fed: Counter[int] = Counter()

        def counted(event: Event, passes: Counter[int] = passes, fed: Counter[int] = fed) -> None:
            if isinstance(event, CanvasEvent):
                passes[event.row] += 1
                fed[event.row] += event.fed

        requests = [
            CanvasRequest(every.prompt_ids(example.prompt), [None] * every.canvas_length, parts(), settings)
            for example in examples
        ]
        filled = denoise(model.denoiser, requests, counted)
        right = [task.right(e, every.answer_of(slots)) for e, slots in zip(examples, filled, strict=True)]
        rows.append(
            {
                "task": task.name,
                "right": "".join("01"[ok] for ok in right),
                "passes": " ".join(str(passes[i]) for i in range(count)),
                "fed": " ".join(str(fed[i]) for i in range(count)),
            }
        )
    return rows


def lines(setup: Setup, tasks: Sequence[str], wanted: Mapping[str, Mapping[str, Made]], **options: Any) -> list[Case]:
    """A case for each setting of each line; the first two settings of each in a quick run.

    Args:
        wanted: settings by line, and by how they are called.
        options: of ``CanvasOptions``.
    """

    def measure(line: str, setting: str, made: Made) -> list[Row]:
        found = answers(setup.diffusion_model(), tasks, made, setup.count, **options)
        for row in found:
            del row["fed"]
        return [{"line": line, "setting": setting, **row} for row in found]

    return [
        Case(f"{line}: {setting}", partial(measure, line, setting, made))
        for line, settings in wanted.items()
        for setting, made in [*settings.items()][: setup.pick(None, 2)]
    ]
