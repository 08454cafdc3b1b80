"""Sets of characters: their meaning in Python's engine, and their spelling for llguidance."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

Ranges = tuple[tuple[int, int], ...]
"""A set of characters: first and last of each run, ascending."""

_CATEGORIES = {"DIGIT": r"\d", "NOT_DIGIT": r"\D", "SPACE": r"\s", "NOT_SPACE": r"\S", "WORD": r"\w", "NOT_WORD": r"\W"}
_ASCII: dict[str, Ranges] = {
    "DIGIT": ((48, 57),),
    "SPACE": ((9, 13), (32, 32)),
    "WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
"""The ASCII characters of each category."""


@lru_cache(maxsize=1)
def _everything() -> str:
    codes = np.concatenate([np.arange(0xD800, dtype="<u4"), np.arange(0xE000, 0x110000, dtype="<u4")])
    return codes.tobytes().decode("utf-32-le")


@lru_cache(maxsize=256)
def members(source: tuple[tuple[str, Any], ...], flags: int) -> Ranges:
    """The characters of a set, as Python's engine reads it."""
    if not flags & re.IGNORECASE and all(name in ("LITERAL", "RANGE") for name, _ in source):
        return merged((what, what) if name == "LITERAL" else what for name, what in source)
    kept = flags & (re.IGNORECASE | re.ASCII)
    finder = re.compile(f"[{''.join(_python(name, what) for name, what in source)}]+", kept)
    # The searched text has no surrogates, so positions after them are code points shifted by 2,048.
    moved = [(m.start(), m.end() - 1) for m in finder.finditer(_everything())]
    return merged(_code(first, last) for first, last in moved)


def narrow_members(source: tuple[tuple[str, Any], ...], flags: int) -> Ranges:
    """The characters that are also in the set with ASCII's meaning of ``\\d``, ``\\w`` and ``\\s``."""
    kinds = [str(what).removeprefix("CATEGORY_") for name, what in source if name == "CATEGORY"]
    if not kinds:
        return members(source, flags)
    if all(kind in _ASCII for kind in kinds) and not flags & re.IGNORECASE and ("NEGATE", None) not in source:
        # Every such ASCII character is in Unicode's category too.
        plain = tuple(entry for entry in source if entry[0] != "CATEGORY")
        return merged([*members(plain, flags), *(chars for kind in kinds for chars in _ASCII[kind])])
    return common(members(source, flags), members(source, flags | re.ASCII))


def _code(first: int, last: int) -> tuple[int, int]:
    return first + 0x800 * (first >= 0xD800), last + 0x800 * (last >= 0xD800)


def _python(name: str, what: Any) -> str:
    if name == "CATEGORY":
        return _CATEGORIES[str(what).removeprefix("CATEGORY_")]
    codes = what if name == "RANGE" else (what,) if name == "LITERAL" else ()
    return "-".join(f"\\U{code:08x}" for code in codes) if codes else "^"


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return tuple(made)


def without(chars: Iterable[int]) -> Ranges:
    made, at = [], 0
    for char in chars:
        made += [(at, char - 1)] if at < char else []
        at = char + 1
    return (*made, (at, 0x10FFFF))


def common(a: Ranges, b: Ranges) -> Ranges:
    pairs = ((max(x[0], y[0]), min(x[1], y[1])) for x in a for y in b if x[0] <= y[1] and y[0] <= x[1])
    return merged(pairs)


def written(chars: Ranges) -> str:
    if not chars:
        return r"[^\x{0}-\x{10FFFF}]"
    if len(chars) == 1 and chars[0][0] == chars[0][1]:
        return char(chars[0][0])
    return f"[{ranges(chars)}]"


def ranges(chars: Ranges) -> str:
    """The inside of a set in llguidance's flavour."""
    return "".join(char(first) if first == last else f"{char(first)}-{char(last)}" for first, last in chars)


@lru_cache(maxsize=4096)
def char(code: int) -> str:
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\x{{{code:x}}}"


def one_of(texts: Iterable[str]) -> str:
    """A pattern in llguidance's flavour that matches these texts."""
    return "|".join("".join(map(char, map(ord, text))) for text in texts)
