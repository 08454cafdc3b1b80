"""Reads a pattern with Python's own parser and writes it for llguidance, part by part (see ``patterns``)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.characters import members, narrow_members, ranges, without, written

try:
    from re import _parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10
    import sre_parse as _parser

_REFUSED = {
    "ASSERT": "look-around",
    "ASSERT_NOT": "look-around",
    "GROUPREF": "back-references",
    "GROUPREF_EXISTS": "conditions on groups",
    "POSSESSIVE_REPEAT": "possessive repeats",
    "ATOMIC_GROUP": "atomic groups",
}
_LINE_ENDS = {ord("\n"), ord("\r"), 0x2028, 0x2029}
_PROPERTY = re.compile(r"(?<!\\)((?:\\\\)*)\\([pP](?:\{[^{}]*\}|[A-Z]))")
_PRIVATE = 0x10FF00
"""Characters that replace Unicode properties, which Python's parser does not know, while it reads a pattern."""
LONGEST = 100_000
"""Most characters or entries that a constraint may require; no model writes a text with more."""


@dataclass(frozen=True)
class Branch:
    """One alternative of a pattern.

    Attributes:
        text: in llguidance's flavour.
        begins: whether it is anchored at the beginning of a text.
        ends: whether it is anchored at its end.
        names: all texts that match it, if they are few.
        runs_on: whether each of their beginnings has endless continuations.
    """

    text: str
    begins: bool
    ends: bool
    names: frozenset[str] | None
    runs_on: bool = False


def shortest(pattern: str) -> int:
    """Length of the shortest text that matches a pattern of either flavour; 0 if Python cannot read it."""
    try:
        return int(_parser.parse(_PROPERTY.sub(r"\1x", pattern), 0).getwidth()[0])
    except (re.error, OverflowError, RecursionError):  # llguidance reads it, or reports what is wrong
        return 0


class Reader:
    """Reads one pattern.

    Args:
        narrow: whether sets contain only what they also contain in ECMA-262: ``\\d``, ``\\w`` and ``\\s`` of ASCII.
        line_end: whether ``$`` also matches before a line end at the very end, as it does in Python's ``re.search``.
        most: most texts that ``Branch.names`` lists.
    """

    def __init__(self, pattern: str, narrow: bool, line_end: bool = False, most: int = 0) -> None:
        self._pattern, self._narrow, self._line_end, self._most = pattern, narrow, line_end, most
        self._properties: list[str] = []
        hidden = _PROPERTY.sub(self._hide, pattern)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # warns of sets whose meaning may change in Python
                self._tree: Any = _parser.parse(hidden, 0)
        except (re.error, OverflowError, RecursionError) as error:
            raise UnspoolError(f"the pattern {_short(pattern)} cannot be read: {error}") from error
        self._flags = int(self._tree.state.flags)

    def branches(self) -> list[Branch]:
        self._check_length(self._tree.getwidth()[0])
        try:
            return self._sequence(list(self._tree), self._flags)
        except RecursionError:
            raise UnspoolError(f"the pattern {_short(self._pattern)} is nested too deeply; flatten it") from None

    def _hide(self, match: re.Match[str]) -> str:
        self._properties.append("\\" + match[2])
        return match[1] + chr(_PRIVATE + len(self._properties) - 1)

    def _sequence(self, items: Sequence[tuple[Any, Any]], flags: int) -> list[Branch]:
        """Alternatives of a concatenation; anchors are allowed where nothing comes before or after them."""
        begins = ends = False
        end_of_line = ""
        items = list(items)
        while items and self._anchor(items[0], ("BEGINNING", "BEGINNING_STRING"), flags):
            begins = bool(items.pop(0))
        while items and self._anchor(items[-1], ("END", "END_STRING"), flags):
            end_of_line = r"\x{a}?" if self._line_end and str(items[-1][1]) == "AT_END" else ""
            ends = bool(items.pop())
        made = [Branch("", begins, ends, frozenset([""]))]
        for i, item in enumerate(items):
            options = self._item(item, flags)
            if (any(option.begins for option in options) and i) or (any(b.ends for b in made) and i):
                self._refuse("an anchor in the middle of a text")
            if i < len(items) - 1 and any(option.ends for option in options):
                self._refuse("an anchor in the middle of a text")
            plain = not any(option.begins or option.ends for option in options)
            if plain:
                options = [self._either(options)]
            made = [self._joined(a, b) for a in made for b in options]
        if ends:
            made = [replace(b, text=b.text + end_of_line, ends=True) for b in made]
        return made

    def _item(self, item: tuple[Any, Any], flags: int) -> list[Branch]:
        op, value = str(item[0]), item[1]
        if op == "BRANCH":
            return [branch for part in value[1] for branch in self._sequence(part, flags)]
        if op == "SUBPATTERN":
            _, added, removed, inner = value
            return self._sequence(inner, (flags | added) & ~removed)
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            return [self._repeat(value[0], value[1], value[2], flags)]
        if op == "AT":
            self._refuse("word boundaries" if "BOUNDARY" in str(value) else "an anchor in the middle of a text")
        if op in _REFUSED or op not in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            self._refuse(_REFUSED.get(op, op.lower()))
        return [self._set(op, value, flags)]

    def _repeat(self, low: int, high: int, inner: Any, flags: int) -> Branch:
        self._check_length(low * inner.getwidth()[0])
        options = self._sequence(inner, flags)
        if any(option.begins or option.ends for option in options):
            self._refuse("a repeated anchor")
        body = self._either(options)
        top = "" if high == _parser.MAXREPEAT else str(high)
        known: frozenset[str] | None = frozenset([""] if low == 0 else [])
        power: frozenset[str] | None = frozenset([""])
        for count in range(1, min(high, self._most + 1) + 1):
            power = self._product(power, body.names)
            known = None if power is None or known is None else known | power if count >= low else known
        runs_on = not top and body.names != frozenset([""])
        few = known if high <= self._most else None
        return Branch(f"(?:{body.text}){{{low},{top}}}", False, False, few, runs_on)

    def _set(self, op: str, value: Any, flags: int) -> Branch:
        items: dict[str, Any] = {"ANY": (), "LITERAL": (("LITERAL", value),)}
        items["NOT_LITERAL"] = ("NEGATE", None), ("LITERAL", value)
        source = tuple((str(name), what) for name, what in (value if op == "IN" else items[op]))
        props = [what for name, what in source if name == "LITERAL" and what >= _PRIVATE]
        if props:
            inside = "".join(self._properties[what - _PRIVATE] for what in props)
            rest = tuple(entry for entry in source if entry[0] != "NEGATE" and entry[1] not in props)
            negated = "^" if source[0][0] == "NEGATE" else ""
            return Branch(f"[{negated}{inside}{ranges(members(rest, flags)) if rest else ''}]", False, False, None)
        if op == "ANY":
            ends = () if flags & re.DOTALL else sorted(_LINE_ENDS) if self._narrow else (ord("\n"),)
            chars = without(ends)
        else:
            chars = (narrow_members if self._narrow else members)(source, flags)
        many = sum(last - first + 1 for first, last in chars)
        few = frozenset(chr(c) for first, last in chars for c in range(first, last + 1)) if many <= self._most else None
        return Branch(written(chars), False, False, few)

    def _either(self, options: Sequence[Branch]) -> Branch:
        if len(options) == 1:
            return options[0]
        together: frozenset[str] | None = frozenset()
        for option in options:
            together = None if together is None or option.names is None else together | option.names
        runs_on = all(option.runs_on for option in options)
        return Branch(f"(?:{'|'.join(o.text for o in options)})", False, False, together, runs_on)

    def _joined(self, a: Branch, b: Branch) -> Branch:
        return Branch(a.text + b.text, a.begins or b.begins, b.ends, self._product(a.names, b.names), b.runs_on)

    def _product(self, a: frozenset[str] | None, b: frozenset[str] | None) -> frozenset[str] | None:
        if a is None or b is None or len(a) * len(b) > 64 * self._most:
            return None
        made = frozenset(x + y for x in a for y in b)
        return made if len(made) <= max(self._most, 1) else None

    def _anchor(self, item: tuple[Any, Any], kinds: tuple[str, ...], flags: int) -> bool:
        kind = str(item[1]).removeprefix("AT_")
        if str(item[0]) != "AT" or kind not in kinds:
            return False
        if flags & re.MULTILINE and not kind.endswith("STRING"):
            self._refuse("anchors of lines, (?m)")
        return True

    def _check_length(self, least: int) -> None:
        if least > LONGEST:
            raise UnspoolError(
                f"the pattern {_short(self._pattern)} requires at least {least:,} characters, and the limit is "
                f"{LONGEST:,}; reduce its repetitions"
            )

    def _refuse(self, what: str) -> None:
        raise UnspoolError(f"the pattern {_short(self._pattern)} uses {what}, which is not supported; rewrite it")


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:77] + "...")
