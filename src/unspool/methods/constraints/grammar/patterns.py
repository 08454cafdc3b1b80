"""Python's regular expressions, written for llguidance with the same meaning.

Both flavours read the same characters differently: ``[[:alpha:]]`` and ``[a&&b]`` are sets in Rust and lists of
characters in Python, ``{,3}``, ``\\Z`` and comments exist only in Python, ``\\w`` follows another edition of Unicode.
So Python's parser reads the pattern, Python's engine determines the characters of a set, and llguidance gets plain
ranges of characters. What it cannot express (look-around, back-references, word boundaries, possessive repeats) is
refused by name.
"""

from __future__ import annotations

import re

from unspool.methods.constraints.grammar.pattern_reader import Reader

_ECMA = re.compile(r"\\.|\[\^?\]?|\(\?<(?![=!])|.", re.DOTALL)
"""Lexemes of a pattern, as far as needed to find what ECMA-262 accepts and Python refuses."""
_CLASSES = {r"\d", r"\D", r"\s", r"\S", r"\w", r"\W"}
_ANY = "(?s:.)*"


def python_of(pattern: str) -> str:
    """The ``pattern`` of a JSON Schema for Python; rewrites ``(?<name>...)`` and ``[\\w-.]``, which Python refuses."""
    made: list[str] = []
    lexemes = _ECMA.findall(pattern)
    inside = False
    for i, lexeme in enumerate(lexemes):
        if inside and lexeme == "-" and {lexemes[i - 1], *lexemes[i + 1 : i + 2]} & _CLASSES:
            made.append(r"\-")  # it is not a range
            continue
        if lexeme == "(?<" and not inside:
            made.append("(?P<")
            continue
        if lexeme[0] == "[":
            inside = not inside or not lexeme.endswith("]")  # the first one in a set does not close it
        elif lexeme == "]":
            inside = False
        made.append(lexeme)
    return "".join(made)


def whole(pattern: str) -> str:
    """The texts that ``re.fullmatch`` accepts, in llguidance's flavour.

    Raises:
        UnspoolError: if Python cannot read it, or llguidance cannot express it.
    """
    return "|".join(branch.text for branch in Reader(pattern, narrow=False).branches())


def found(pattern: str) -> str:
    """Texts in which the ``pattern`` of a JSON Schema is found, by Python and by ECMA-262 alike.

    Raises:
        UnspoolError: see ``whole``.
    """
    return _searched(Reader(python_of(pattern), narrow=True))


def found_names(pattern: str) -> str:
    """Names that match one of ``patternProperties`` in Python; a name that matches none is an additional one.

    Raises:
        UnspoolError: see ``whole``.
    """
    return _searched(Reader(python_of(pattern), narrow=False, line_end=True))


def runs_on(pattern: str) -> bool:
    """Whether each beginning of a name that matches the pattern has endless continuations."""
    return all(branch.runs_on or not branch.ends for branch in Reader(python_of(pattern), narrow=False).branches())


def _searched(reader: Reader) -> str:
    parts = [
        ("" if branch.begins else _ANY) + f"(?:{branch.text})" + ("" if branch.ends else _ANY)
        for branch in reader.branches()
    ]
    return f"^(?:{'|'.join(parts)})$"


def names(pattern: str, most: int) -> frozenset[str] | None:
    """All names that match one of ``patternProperties``; None if there are more than ``most``.

    Python also matches each of them with a line end after it.
    """
    together: set[str] = set()
    for branch in Reader(python_of(pattern), narrow=False, most=most).branches():
        if branch.names is None or not (branch.begins and branch.ends):
            return None
        together |= branch.names
    return frozenset(together) if len(together) <= most else None
