"""A task for a small masked-diffusion model, and sets of tasks that share a vocabulary and a canvas.

Data is unlimited, and a checker decides whether an answer is right. A task is *dependent* if the prompt does not
determine its answer, so that the answer's tokens depend on one another given the prompt. Committing several of them at
once can then go wrong, however good the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")
PAD, MASK, END = "<pad>", "<mask>", "<end>"

_HELD_OUT = 20_260_000

Symbols = list[str]


@dataclass(frozen=True)
class Example:
    """A question and one right answer, as symbols."""

    prompt: Symbols
    answer: Symbols


def exact(example: Example, answer: Symbols) -> bool:
    """The checker of a task with one right answer."""
    return answer == example.answer


@dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes:
        name: also the first symbol of its prompts, in angle brackets.
        dependent: whether several answers are right, so that their tokens depend on one another.
        sample: draws an example.
        right: whether an answer, without end tokens, is right for a prompt.
        answer: slots of the result after the working, from the first to after the last; None: the whole canvas.
    """

    name: str
    dependent: bool
    sample: Callable[[np.random.Generator], Example]
    right: Callable[[Example, Symbols], bool] = exact
    answer: tuple[int, int] | None = None

    @property
    def symbol(self) -> str:
        return f"<{self.name}>"


def held_out(task: Task, count: int) -> list[Example]:
    """Questions not used in training. Always the same; fewer questions are the first of more.

    Training draws from (seed, step): a key of another length is another stream.
    """
    rng = np.random.default_rng([_HELD_OUT, *task.name.encode()])
    return [task.sample(rng) for _ in range(count)]


def letters(rng: np.random.Generator, count: int) -> Symbols:
    """Distinct letters in random order."""
    return [LETTERS[i] for i in rng.permutation(len(LETTERS))[:count]]


@dataclass(frozen=True)
class TaskSet:
    """Tasks for one model.

    Attributes:
        tasks: at least one.
        symbols: the vocabulary without padding, mask, end token and the tasks' own symbols; all different. A text is
            the concatenation of its symbols.
        prompt_length, canvas_length: symbols of a prompt and slots of a canvas. Both are padded, prompts with ``PAD``,
            canvases with ``END``.
    """

    tasks: tuple[Task, ...]
    symbols: tuple[str, ...]
    prompt_length: int
    canvas_length: int

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The symbols; a symbol's id is its index."""
        return (PAD, MASK, END, *(task.symbol for task in self.tasks), *self.symbols)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {symbol: place for place, symbol in enumerate(self.vocabulary)}

    @property
    def length(self) -> int:
        """Positions of a prompt and its canvas."""
        return self.prompt_length + self.canvas_length

    def prompt_ids(self, prompt: Symbols) -> list[int]:
        """A prompt, padded on the right, so that positions of the canvas do not depend on it."""
        return [self.ids[symbol] for symbol in prompt] + [self.ids[PAD]] * (self.prompt_length - len(prompt))

    def canvas_ids(self, answer: Symbols) -> list[int]:
        """An answer and the end tokens after it, which are learned as well."""
        return [self.ids[symbol] for symbol in answer] + [self.ids[END]] * (self.canvas_length - len(answer))

    def answer_of(self, slots: Sequence[int]) -> Symbols:
        """The symbols before the first end token."""
        symbols = [self.vocabulary[token] for token in slots]
        return symbols[: symbols.index(END)] if END in symbols else symbols
