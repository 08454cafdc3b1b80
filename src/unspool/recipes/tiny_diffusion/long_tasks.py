"""Tasks for a long canvas: records, JSON-like text, functions of several statements, Latin squares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from unspool.recipes.tiny_diffusion.functions import DEF, INDENT, NAMES, NEWLINE, OPERATIONS, RETURN, computes
from unspool.recipes.tiny_diffusion.tasks import DIGITS, LETTERS, Example, Symbols, Task, TaskSet, letters


def _count(rng: np.random.Generator, least: int, most: int) -> int:
    return int(rng.integers(least, most + 1))


def _length(rng: np.random.Generator, least: int, most: int) -> int:
    """The larger of two draws: only long answers teach what comes late in an answer."""
    return max(_count(rng, least, most), _count(rng, least, most))


def _digits(rng: np.random.Generator, count: int) -> Symbols:
    return [str(digit) for digit in rng.integers(10, size=count)]


def _records(rng: np.random.Generator) -> Example:
    prompt, answer = ["<records>"], []
    for _ in range(_length(rng, 3, 7)):
        name, age = letters(rng, 2), _digits(rng, 2)
        prompt += [*name, *age]
        answer += ["name", ":", *name, ";", "age", ":", *age, NEWLINE]
    return Example(prompt, answer)


def _json(rng: np.random.Generator) -> Example:
    """Pairs of a key and a number or a list of digits."""
    prompt, answer = ["<json>"], []
    for key in letters(rng, _length(rng, 2, 6)):
        digits = _digits(rng, _count(rng, 1, 3))
        if rng.random() < 0.5:
            digits[0] = str(_count(rng, 1, 9))  # a number has no leading zero
            given, value = digits, digits
        else:
            given = ["[", *digits, "]"]
            value = ["[", *[symbol for digit in digits for symbol in (",", digit)][1:], "]"]
        prompt += [key, *given]
        answer += [",", '"', key, '"', ":", *value]
    return Example(prompt, ["{", *answer[1:], "}"])


def _function(name: str, a: str, b: str, lines: Sequence[Symbols]) -> Symbols:
    body = [symbol for line in lines for symbol in (NEWLINE, INDENT, *line)]
    return [DEF, name, "(", a, ",", b, ")", ":", *body]


def _statements(targets: Symbols, a: str, b: str, operations: Sequence[str]) -> list[Symbols]:
    """Combine ``a`` and ``b``, then each result with ``a`` and ``b`` in turn."""
    lines, left = [], a
    for i, (target, operation) in enumerate(zip(targets, operations, strict=True)):
        lines.append([target, "=", left, operation, a if i % 2 else b])
        left = target
    return [*lines, [RETURN, left]]


def _drawn(rng: np.random.Generator) -> tuple[str, Symbols, Symbols]:
    operations = [list(OPERATIONS)[i] for i in rng.integers(len(OPERATIONS), size=_length(rng, 3, 8))]
    return NAMES[rng.integers(len(NAMES))], operations, letters(rng, len(operations) + 2)


def _program(rng: np.random.Generator) -> Example:
    name, operations, (a, b, *targets) = _drawn(rng)
    steps = [symbol for pair in zip(targets, operations, strict=True) for symbol in pair]
    return Example(["<program>", name, a, b, *steps], _function(name, a, b, _statements(targets, a, b, operations)))


def _program_free(rng: np.random.Generator) -> Example:
    name, operations, (a, b, *targets) = _drawn(rng)
    return Example(["<program_free>", name, *operations], _function(name, a, b, _statements(targets, a, b, operations)))


def _runs(example: Example, answer: Symbols) -> bool:
    name, *operations = example.prompt[1:]

    def meaning(a: int, b: int) -> int:
        value = a
        for i, operation in enumerate(operations):
            value = OPERATIONS[operation](value, a if i % 2 else b)
        return value

    return computes(answer, name, meaning, [(2, 5), (7, 3), (-4, 1)])


@cache
def _squares() -> NDArray[np.int64]:
    """[576, 16]: all Latin squares of side 4, row by row."""
    squares = product(permutations((1, 2, 3, 4)), repeat=4)
    return np.array([sum(s, ()) for s in squares if all(len(set(column)) == 4 for column in zip(*s, strict=True))])


def _completions(cells: NDArray[np.int64]) -> int:
    """Number of Latin squares with these cells [16]; 0 is an empty one."""
    return int(((cells == 0) | (_squares() == cells)).all(axis=1).sum())


def _written(cells: NDArray[np.int64]) -> Symbols:
    return [str(cell) if cell else "_" for cell in cells]


def _rows(cells: Symbols) -> Symbols:
    return [symbol for i in range(0, 16, 4) for symbol in (*cells[i : i + 4], NEWLINE)][:-1]


def _latin(rng: np.random.Generator) -> Example:
    """Cells are emptied as long as the rest has only one completion."""
    square = _squares()[rng.integers(len(_squares()))]
    cells = square.copy()
    for place in rng.permutation(16)[: _count(rng, 4, 12)]:
        cells[place] = 0
        if _completions(cells) > 1:
            cells[place] = square[place]
    return Example(["<latin>", *_written(cells)], _rows(_written(square)))


def _latin_free(rng: np.random.Generator) -> Example:
    while True:
        square = _squares()[rng.integers(len(_squares()))]
        cells = square.copy()
        cells[rng.permutation(16)[: _count(rng, 10, 16)]] = 0
        if _completions(cells) > 1:
            return Example(["<latin_free>", *_written(cells)], _rows(_written(square)))


def _is_latin(example: Example, answer: Symbols) -> bool:
    found = [symbol for symbol in answer if symbol != NEWLINE]
    if answer != _rows(found) or len(found) != 16 or not set(found) <= set("1234"):
        return False
    cells = np.array([int(symbol) for symbol in found])
    agrees = all(given in ("_", symbol) for given, symbol in zip(example.prompt[1:], found, strict=True))
    return agrees and _completions(cells) == 1


LONG = TaskSet(
    tasks=(
        Task("records", False, _records),
        Task("json", False, _json),
        Task("program", False, _program),
        Task("program_free", True, _program_free, _runs),
        Task("latin", False, _latin),
        Task("latin_free", True, _latin_free, _is_latin),
    ),
    symbols=(
        *(*LETTERS, *DIGITS, *NAMES, "name", "age", DEF, RETURN),
        *(",", "+", "-", "*", "=", ";", "_", ":", "(", ")", "[", "]", "{", "}", '"', NEWLINE, INDENT),
    ),
    prompt_length=40,
    canvas_length=96,
)
"""Prompts of at most 40 symbols, answers of at most 95 and an end token."""
