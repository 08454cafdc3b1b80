"""Tasks for a short canvas: lists, sums and short functions.

The list tasks are those of ParallelBench (2025) with single-token items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unspool.recipes.tiny_diffusion.functions import DEF, IF, INDENT, NAMES, NEWLINE, OPERATIONS, RETURN, computes
from unspool.recipes.tiny_diffusion.tasks import DIGITS, LETTERS, Example, Symbols, Task, TaskSet, letters

_SHORTEST, _LONGEST = 3, 6
_FILLED = 18
_ANSWER = (19, 21)


def _items(rng: np.random.Generator) -> Symbols:
    return letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)))


def _listed(items: Sequence[str]) -> Symbols:
    return [symbol for item in items for symbol in (",", item)][1:]


def _unlisted(answer: Symbols) -> Symbols | None:
    """The items of a well-formed list; None if it is malformed."""
    items = answer[::2]
    return items if answer == _listed(items) else None


def _list_task(name: str, change: Callable[[Symbols], Symbols]) -> Task:
    def sample(rng: np.random.Generator) -> Example:
        items = _items(rng)
        return Example([f"<{name}>", *items], _listed(change(items)))

    return Task(name, False, sample)


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
    *items, word = letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)) + 1)
    place = int(rng.integers(len(items)))
    changed = [*items[:place], word, *items[place + 1 :]]
    return Example(["<replace_index>", *items, str(place), word], _listed(changed))


def _replace_random(rng: np.random.Generator) -> Example:
    *items, word = letters(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)) + 1)
    place = int(rng.integers(len(items)))
    return Example(["<replace_random>", *items, ",", word], _listed([*items[:place], word, *items[place + 1 :]]))


def _is_replaced(example: Example, answer: Symbols) -> bool:
    items, (*given, _, word) = _unlisted(answer), example.prompt[1:]
    if items is None or len(items) != len(given):
        return False
    return [new for new, old in zip(items, given, strict=True) if new != old] == [word]


def _addition(rng: np.random.Generator) -> Example:
    """With leading zeros, so that each digit always has the same place."""
    a, b = (int(rng.integers(10 ** int(rng.integers(1, 4)))) for _ in range(2))
    return Example(["<addition>", *f"{a:03d}", "+", *f"{b:03d}"], list(f"{a + b:04d}"))


def _chain(rng: np.random.Generator) -> Example:
    """Three digits are added one by one; the two-digit answer has its own slots."""
    a, b, c = (int(digit) for digit in rng.integers(1, 10, 3))
    working = [*f"{a}+{b}={a + b};{a + b}+{c}={a + b + c};"]
    filled = working + ["_"] * (_FILLED - len(working))
    return Example(["<chain>", str(a), str(b), str(c)], [*filled, "#", *f"{a + b + c:02d}"])


def _is_chained(example: Example, answer: Symbols) -> bool:
    return answer[slice(*_ANSWER)] == example.answer[slice(*_ANSWER)]


_CODE = ("+", "-", "*", "min", "max", "<", ">")
_MEANINGS: dict[str, Callable[[int, int], int]] = {
    **OPERATIONS,
    "min": min,
    "max": max,
    "<": min,
    ">": max,
}


def _function(name: str, a: str, b: str, what: str) -> Symbols:
    head = [DEF, name, "(", a, ",", b, ")", ":", NEWLINE, INDENT]
    if what in ("min", "max"):
        return [*head, RETURN, what, "(", a, ",", b, ")"]
    if what in ("<", ">"):
        return [*head, IF, a, what, b, ":", RETURN, a, NEWLINE, INDENT, RETURN, b]
    return [*head, RETURN, a, what, b]


def _python(rng: np.random.Generator) -> Example:
    name, what = NAMES[rng.integers(len(NAMES))], _CODE[rng.integers(len(_CODE))]
    a, b = letters(rng, 2)
    return Example(["<python>", name, a, b, what], _function(name, a, b, what))


def _python_free(rng: np.random.Generator) -> Example:
    name, what = NAMES[rng.integers(len(NAMES))], _CODE[rng.integers(len(_CODE))]
    a, b = letters(rng, 2)
    return Example(["<python_free>", name, what], _function(name, a, b, what))


_PAIRS = [(2, 5), (7, 3), (-4, 1), (6, 6)]


def _runs(example: Example, answer: Symbols) -> bool:
    name, *_, what = example.prompt[1:]
    return computes(answer, name, _MEANINGS[what], _PAIRS)


SHORT = TaskSet(
    tasks=(
        _list_task("copy", lambda items: items),
        _list_task("reverse", lambda items: items[::-1]),
        _list_task("sort", sorted),
        Task("replace_index", False, _replace_index),
        Task("replace_random", True, _replace_random, _is_replaced),
        Task("shuffle", True, _shuffle, _is_shuffled),
        Task("addition", False, _addition),
        Task("chain", False, _chain, _is_chained, answer=_ANSWER),
        Task("python", False, _python),
        Task("python_free", True, _python_free, _runs),
    ),
    symbols=(
        *(*LETTERS, *DIGITS, *NAMES),
        *(",", "+", "-", "*", "=", "<", ">", ";", "#", "_", ":", "(", ")", NEWLINE, INDENT),
        *(DEF, RETURN, IF, "min", "max"),
    ),
    prompt_length=10,
    canvas_length=24,
)
"""Prompts of at most 10 symbols, answers of at most 23 and an end token."""
