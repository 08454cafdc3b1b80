"""Tasks for small masked-diffusion models, with data without end and checkers: lists, sums and short functions.

The list tasks are those of ParallelBench (2025) with items of one token. A task is *dependent* if its answer is not
determined by the prompt, so that tokens of the answer depend on one another given the prompt: committing several of
them at once can then go wrong however good the model is. All tasks share one vocabulary of single symbols.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")
NAMES = ("f0", "f1", "f2")
PAD, MASK, END = "<pad>", "<mask>", "<end>"
ANSWER = (19, 21)
"""Slots of a chain's answer, from the first to behind the last."""

_INDENT, _NEWLINE = "    ", "\n"
_SHORTEST, _LONGEST = 3, 6
_FILLED = 18

Symbols = list[str]


@dataclass(frozen=True)
class Example:
    """What is asked and one right answer, as symbols."""

    prompt: Symbols
    answer: Symbols


@dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes:
        name: also the first symbol of its prompts, in angle brackets.
        dependent: whether several answers are right, so that their tokens depend on one another.
        sample: draws an example.
        right: whether an answer, without end tokens, is right for a prompt.
    """

    name: str
    dependent: bool
    sample: Callable[[np.random.Generator], Example]
    right: Callable[[Example, Symbols], bool]

    @property
    def symbol(self) -> str:
        return f"<{self.name}>"


def _exact(example: Example, answer: Symbols) -> bool:
    return answer == example.answer


def _letters(rng: np.random.Generator, count: int) -> Symbols:
    return [LETTERS[i] for i in rng.permutation(len(LETTERS))[:count]]


def _items(rng: np.random.Generator) -> Symbols:
    return _letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)))


def _listed(items: Sequence[str]) -> Symbols:
    return [symbol for item in items for symbol in (",", item)][1:]


def _unlisted(answer: Symbols) -> Symbols | None:
    """The items of a well-formed list; None if it is not one."""
    items = answer[::2]
    return items if answer == _listed(items) else None


def _list_task(name: str, change: Callable[[Symbols], Symbols]) -> Task:
    def sample(rng: np.random.Generator) -> Example:
        items = _items(rng)
        return Example([f"<{name}>", *items], _listed(change(items)))

    return Task(name, False, sample, _exact)


def _shuffle(rng: np.random.Generator) -> Example:
    items = _items(rng)
    order = items
    while order == items:
        order = [items[i] for i in rng.permutation(len(items))]
    return Example(["<shuffle>", *items], _listed(order))


def _is_shuffled(example: Example, answer: Symbols) -> bool:
    items, given = _unlisted(answer), example.prompt[1:]
    return items is not None and items != given and sorted(items) == sorted(given)


def _replace_index(rng: np.random.Generator) -> Example:
    *items, word = _letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)) + 1)
    place = int(rng.integers(len(items)))
    changed = [*items[:place], word, *items[place + 1 :]]
    return Example(["<replace_index>", *items, str(place), word], _listed(changed))


def _replace_random(rng: np.random.Generator) -> Example:
    *items, word = _letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)) + 1)
    place = int(rng.integers(len(items)))
    return Example(["<replace_random>", *items, ",", word], _listed([*items[:place], word, *items[place + 1 :]]))


def _is_replaced(example: Example, answer: Symbols) -> bool:
    items, (*given, _, word) = _unlisted(answer), example.prompt[1:]
    if items is None or len(items) != len(given):
        return False
    return [new for new, old in zip(items, given, strict=True) if new != old] == [word]


def _addition(rng: np.random.Generator) -> Example:
    a, b = (int(rng.integers(10 ** int(rng.integers(1, 4)))) for _ in range(2))
    return Example(["<addition>", *str(a), "+", *str(b)], list(str(a + b)))


def _chain(rng: np.random.Generator) -> Example:
    """Three digits are added one by one; the answer, two digits, stands in slots of its own."""
    a, b, c = (int(digit) for digit in rng.integers(1, 10, 3))
    working = [*f"{a}+{b}={a + b};{a + b}+{c}={a + b + c};"]
    filled = working + ["_"] * (_FILLED - len(working))
    return Example(["<chain>", str(a), str(b), str(c)], [*filled, "#", *f"{a + b + c:02d}"])


def _is_chained(example: Example, answer: Symbols) -> bool:
    return answer[ANSWER[0] : ANSWER[1]] == example.answer[ANSWER[0] : ANSWER[1]]


_CODE = ("+", "-", "*", "min", "max", "<", ">")
_MEANINGS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "min": min,
    "max": max,
    "<": min,
    ">": max,
}


def _function(name: str, a: str, b: str, what: str) -> Symbols:
    head = ["def", name, "(", a, ",", b, ")", ":", _NEWLINE, _INDENT]
    if what in ("min", "max"):
        return [*head, "return", what, "(", a, ",", b, ")"]
    if what in ("<", ">"):
        return [*head, "if", a, what, b, ":", "return", a, _NEWLINE, _INDENT, "return", b]
    return [*head, "return", a, what, b]


def _python(rng: np.random.Generator) -> Example:
    name, what = NAMES[rng.integers(len(NAMES))], _CODE[rng.integers(len(_CODE))]
    a, b = _letters(rng, 2)
    return Example(["<python>", name, a, b, what], _function(name, a, b, what))


def _python_free(rng: np.random.Generator) -> Example:
    name, what = NAMES[rng.integers(len(NAMES))], _CODE[rng.integers(len(_CODE))]
    a, b = _letters(rng, 2)
    return Example(["<python_free>", name, what], _function(name, a, b, what))


_ALLOWED = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.If, ast.Compare, ast.Lt, ast.Gt),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Call, ast.Name, ast.Load),
)


def _runs(example: Example, answer: Symbols) -> bool:
    """Whether the answer defines the function that was asked for, by running it.

    Only definitions, returns, conditions, arithmetic and calls of ``min`` and ``max`` are run: nothing of that can go
    on for long or touch anything.
    """
    name, *_, what = example.prompt[1:]
    text = " ".join(answer).replace(f"{_NEWLINE} ", _NEWLINE)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not all(isinstance(node, _ALLOWED) for node in ast.walk(tree)) or not all(
        isinstance(function, ast.Name) and function.id in ("min", "max") for function in calls
    ):
        return False
    space: dict[str, Any] = {"__builtins__": {}, "min": min, "max": max}
    pairs = [(2, 5), (7, 3), (-4, 1), (6, 6)]
    try:
        exec(compile(tree, "<answer>", "exec"), space)
        return all(space[name](a, b) == _MEANINGS[what](a, b) for a, b in pairs)
    except (NameError, TypeError, KeyError, SyntaxError):
        return False


SHORT: tuple[Task, ...] = (
    _list_task("copy", lambda items: items),
    _list_task("reverse", lambda items: items[::-1]),
    _list_task("sort", sorted),
    Task("replace_index", False, _replace_index, _exact),
    Task("replace_random", True, _replace_random, _is_replaced),
    Task("shuffle", True, _shuffle, _is_shuffled),
    Task("addition", False, _addition, _exact),
    Task("chain", False, _chain, _is_chained),
    Task("python", False, _python, _exact),
    Task("python_free", True, _python_free, _runs),
)
"""Tasks of a short canvas: prompts of at most 10 symbols, answers of at most 24."""

PROMPT_LENGTH, CANVAS_LENGTH = 10, 24
"""Symbols of a prompt and slots of a canvas; both are padded, prompts with ``PAD``, canvases with ``END``."""

SYMBOLS: tuple[str, ...] = (
    *(PAD, MASK, END, *LETTERS, *DIGITS, *NAMES, *(task.symbol for task in SHORT)),
    *(",", "+", "-", "*", "=", "<", ">", ";", "#", "_", ":", "(", ")", _NEWLINE, _INDENT),
    *("def", "return", "if", "min", "max"),
)
"""The vocabulary; a symbol's id is its place."""

IDS = {symbol: place for place, symbol in enumerate(SYMBOLS)}


def prompt_ids(example: Example) -> list[int]:
    """The prompt, padded on the right: positions of the canvas do not depend on it."""
    return [IDS[symbol] for symbol in example.prompt] + [IDS[PAD]] * (PROMPT_LENGTH - len(example.prompt))


def canvas_ids(example: Example) -> list[int]:
    """The answer, and the end tokens behind it, which are learned as well."""
    return [IDS[symbol] for symbol in example.answer] + [IDS[END]] * (CANVAS_LENGTH - len(example.answer))


def answer_of(slots: Sequence[int]) -> Symbols:
    """The symbols before the first end token."""
    symbols = [SYMBOLS[token] for token in slots]
    return symbols[: symbols.index(END)] if END in symbols else symbols
