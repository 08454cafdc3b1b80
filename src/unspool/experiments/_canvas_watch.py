"""The pass from which each token is predicted for good, and the pass that commits it: the premise of history rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.canvas import DiffusionModel
from unspool.engine.canvas import BlockState, UnmaskPolicy
from unspool.engine.canvas_request import CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.experiments._canvas import tasks_of
from unspool.methods.diffusion.fixed_blocks import FixedBlocks
from unspool.recipes.tiny_diffusion.tasks import Task, held_out


class _Watch:
    """A transform that changes nothing and records the predictions of each pass."""

    def __init__(self) -> None:
        self.predicted: list[NDArray[np.int64]] = []

    def start_block(self, view: BlockState) -> None: ...

    def __call__(self, view: BlockState) -> NDArray[np.float64]:
        self.predicted.append(view.logits.argmax(axis=1))
        return view.logits


@dataclass(frozen=True)
class Watched:
    """One question, decoded without blocks.

    Attributes:
        task: of the question.
        right: whether the answer is.
        length: slots of the answer, without end tokens.
        committed: [slots] the pass that committed each, from 0.
        since: [slots] the pass from which on the prediction stayed what was committed.
        passes: of all.
    """

    task: Task
    right: bool
    length: int
    committed: NDArray[np.int64]
    since: NDArray[np.int64]
    passes: int


def watched(
    model: DiffusionModel, tasks: Sequence[str], policy: Callable[[], UnmaskPolicy], count: int
) -> Iterator[Watched]:
    """Decode the first ``count`` held-out questions of each task, task by task."""
    every, chosen = tasks_of(model, tasks)
    for task in chosen:
        examples = held_out(task, count)
        watches = [_Watch() for _ in examples]
        committed = np.zeros((len(examples), every.canvas_length), dtype=np.int64)

        def record(event: Event, committed: NDArray[np.int64] = committed) -> None:
            if isinstance(event, CanvasEvent):
                committed[event.row, list(event.committed)] = event.step

        requests = [
            CanvasRequest(
                every.prompt_ids(example.prompt),
                [None] * every.canvas_length,
                Parts(policy(), FixedBlocks(), [watch]),
            )
            for example, watch in zip(examples, watches, strict=True)
        ]
        filled = denoise(model.denoiser, requests, record)
        for example, watch, slots, steps in zip(examples, watches, filled, committed, strict=True):
            answer = every.answer_of(slots)
            since = stable(np.array(watch.predicted), np.array(slots), steps)
            right = task.right(example, answer)
            yield Watched(task, right, len(answer), steps, since, len(watch.predicted))


def stable(predicted: NDArray[np.int64], slots: NDArray[np.int64], committed: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pass from which on the prediction of each slot stayed the token that was committed.

    Args:
        predicted: [passes, slots].
        slots: [slots] the tokens.
        committed: [slots] the passes that committed them.
    """
    passes = np.arange(len(predicted))[:, None]
    other = (predicted != slots) & (passes <= committed)
    since: NDArray[np.int64] = np.where(other, passes + 1, 0).max(axis=0)
    return since
