"""Minimum lengths of the texts of a grammar in llguidance's Lark form (see ``lark_check``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.pattern_reader import LONGEST, shortest

_CHARACTER = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", re.DOTALL)
"""One character of a text in quotes, escaped or not."""


@dataclass(frozen=True)
class Lexeme:
    """A word of a grammar; ``kind`` is the group of ``lark_check._LEXEME`` that it matched."""

    kind: str
    text: str


def check_lengths(rules: dict[str, list[Lexeme]]) -> None:
    """Refuse rules that have no text, or only very long ones."""
    if any(lexeme.text == "::" for body in rules.values() for lexeme in body):
        return  # rules with parameters can count, which this cannot follow
    least: dict[str, float] = dict.fromkeys(rules, inf)
    known = None
    while known != (known := dict(least)):
        least |= {name: _Body(body, least).least() for name, body in rules.items()}
    for name, length in least.items():
        if length == inf:
            raise UnspoolError(f"no text fits the rule {name}: each alternative is endless; give it a way to end")
        if length > LONGEST:
            raise UnspoolError(
                f"the rule {name} requires at least {int(length):,} characters, and the limit is {LONGEST:,}; reduce "
                "its repetitions"
            )


class _Body:
    """The shortest text of a rule's body, in characters, from those of the rules (``known``); inf if there is none.

    Other operators of a grammar, such as ``&`` of terminals, can only make texts longer.
    """

    def __init__(self, lexemes: list[Lexeme], known: dict[str, float]) -> None:
        self._lexemes, self._known, self._at = lexemes, known, 0

    def least(self) -> float:
        found = self._alternative()
        while self._peek() == "|":
            self._at += 1
            found = min(found, self._alternative())
        return found

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._lexemes[at].text if at < len(self._lexemes) else ""

    def _alternative(self) -> float:
        found = both = 0.0
        while self._peek() not in ("", "|", ")", "]"):
            if self._peek() == "&":
                self._at += 1
                both, found = max(both, found), 0.0
            else:
                found += self._item()
        return max(both, found)

    def _item(self) -> float:
        lexeme = self._lexemes[self._at]
        self._at += 1
        found = 0.0
        if lexeme.kind == "name":
            found = self._known.get(lexeme.text, 0)
        elif lexeme.kind == "text":
            found = _characters(lexeme.text)
            if self._peek() == "..":  # a range: one of its characters
                self._at += 2
        elif lexeme.text in ("(", "["):
            inside = self.least()
            found = inside if lexeme.text == "(" else 0.0
            self._at += 1
        elif lexeme.text == "~":
            self._item()  # any other text
        elif lexeme.text == "->":
            self._at += 1  # an alias
        if self._peek() in ("?", "*"):
            self._at += 1
            return 0
        if self._peek() in ("~", "{"):
            return self._repeated(found)
        return found

    def _repeated(self, once: float) -> float:
        """The length of ``x~2``, ``x~2..3``, ``x{2}``, ``x{2,3}`` or ``x{,3}``, where ``x`` has ``once`` characters."""
        sign = self._peek()
        self._at += 1
        times = self._number()
        if sign == "{":
            while self._peek() not in ("", "}"):
                self._at += 1
            self._at += 1
        elif self._peek() == "..":
            self._at += 1
            self._number()
        return once * times if times else 0.0

    def _number(self) -> int:
        digits = ""
        while self._peek().isdecimal():
            digits += self._peek()
            self._at += 1
        return int(digits or "0")


def _characters(text: str) -> int:
    """Minimum length of a text or a pattern in a grammar."""
    if text.startswith("/"):
        return shortest(text[1 : text.rindex("/")])
    return len(_CHARACTER.findall(text[1 : text.rindex('"')])) if text.startswith('"') else 0
