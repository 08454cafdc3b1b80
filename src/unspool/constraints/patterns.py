"""Regular expressions of Python, written for llguidance so that they mean the same there.

The two flavours read the same characters differently: ``[[:alpha:]]`` and ``[a&&b]`` are sets in Rust and lists of
characters in Python, ``{,3}``, ``\\Z`` and comments exist in Python alone, ``\\w`` follows another edition of Unicode.
So Python's own parser reads the pattern, Python's own engine says which characters a set holds, and what is written for
llguidance are plain ranges of characters. What it has no word for (look-around, back-references, word boundaries,
possessive repeats) is refused by name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from unspool.errors import UnspoolError

try:
    from re import _parser  # type: ignore[attr-defined]
except ImportError:  # Python 3.10
    import sre_parse as _parser

Ranges = tuple[tuple[int, int], ...]
"""A set of characters: first and last of each run, ascending."""

_CATEGORIES = {"DIGIT": r"\d", "NOT_DIGIT": r"\D", "SPACE": r"\s", "NOT_SPACE": r"\S", "WORD": r"\w", "NOT_WORD": r"\W"}
_ASCII: dict[str, Ranges] = {
    "DIGIT": ((48, 57),),
    "SPACE": ((9, 13), (32, 32)),
    "WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
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
"""Characters that stand for Unicode properties, which Python's parser does not know, while it reads a pattern."""
_ANY = "(?s:.)*"


@dataclass(frozen=True)
class Branch:
    """One alternative of a pattern.

    Attributes:
        text: in llguidance's flavour.
        begins: whether it stands at the beginning of a text.
        ends: whether it stands at its end.
        names: all texts that match it, if they are few.
    """

    text: str
    begins: bool
    ends: bool
    names: frozenset[str] | None


def whole(pattern: str) -> str:
    """What ``re.fullmatch`` takes, in llguidance's flavour.

    Raises:
        UnspoolError: if Python cannot read it, or llguidance has no word for it.
    """
    return "|".join(branch.text for branch in _Reader(pattern, narrow=False).branches())


def found(pattern: str) -> str:
    """Texts in which the ``pattern`` of a JSON Schema is found, by Python and by ECMA-262 alike.

    Raises:
        UnspoolError: see ``whole``.
    """
    return _searched(_Reader(pattern, narrow=True))


def found_names(pattern: str) -> str:
    """Names in which one of ``patternProperties`` is found, by Python: what is none of them is an additional one.

    Raises:
        UnspoolError: see ``whole``.
    """
    return _searched(_Reader(pattern, narrow=False, line_end=True))


def _searched(reader: _Reader) -> str:
    parts = [
        ("" if branch.begins else _ANY) + f"(?:{branch.text})" + ("" if branch.ends else _ANY)
        for branch in reader.branches()
    ]
    return f"^(?:{'|'.join(parts)})$"


def names(pattern: str, most: int) -> frozenset[str] | None:
    """All names in which one of ``patternProperties`` is found, None if there are more than ``most``.

    Python also finds it in each of them with a line end behind it.
    """
    together: set[str] = set()
    for branch in _Reader(pattern, narrow=False, most=most).branches():
        if branch.names is None or not (branch.begins and branch.ends):
            return None
        together |= branch.names
    return frozenset(together) if len(together) <= most else None


def one_of(texts: Iterable[str]) -> str:
    """A pattern in llguidance's flavour that matches these texts."""
    return "|".join("".join(map(_char, map(ord, text))) for text in texts)


class _Reader:
    """Reads one pattern.

    Args:
        narrow: whether sets hold only what they hold in ECMA-262 as well: ``\\d``, ``\\w`` and ``\\s`` of ASCII.
        line_end: whether ``$`` also stands before a line end at the very end, as it does in Python's ``re.search``.
        most: texts that ``Branch.names`` may list.
    """

    def __init__(self, pattern: str, narrow: bool, line_end: bool = False, most: int = 0) -> None:
        self._pattern, self._narrow, self._line_end, self._most = pattern, narrow, line_end, most
        self._properties: list[str] = []
        hidden = _PROPERTY.sub(self._hide, pattern)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # told where Python's meaning may change some day
                self._tree: Any = _parser.parse(hidden, 0)
        except (re.error, OverflowError, RecursionError) as error:
            raise UnspoolError(f"the pattern {_short(pattern)} cannot be read: {error}") from error
        self._flags = int(self._tree.state.flags)

    def branches(self) -> list[Branch]:
        try:
            return self._sequence(list(self._tree), self._flags)
        except RecursionError:
            raise UnspoolError(f"the pattern {_short(self._pattern)} is nested too deeply; flatten it") from None

    def _hide(self, match: re.Match[str]) -> str:
        self._properties.append("\\" + match[2])
        return match[1] + chr(_PRIVATE + len(self._properties) - 1)

    def _sequence(self, items: Sequence[tuple[Any, Any]], flags: int) -> list[Branch]:
        """Alternatives of a concatenation; anchors are taken where nothing stands before or behind them."""
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
            if any(option.begins for option in options) and i or any(b.ends for b in made) and i:
                self._refuse("an anchor in the middle of a text")
            if i < len(items) - 1 and any(option.ends for option in options):
                self._refuse("an anchor in the middle of a text")
            plain = not any(option.begins or option.ends for option in options)
            if plain:
                options = [self._either(options)]
            made = [self._joined(a, b) for a in made for b in options]
        if ends:
            made = [Branch(b.text + end_of_line, b.begins, True, b.names) for b in made]
        return made

    def _item(self, item: tuple[Any, Any], flags: int) -> list[Branch]:
        op, value = str(item[0]), item[1]
        if op == "BRANCH":
            return [branch for part in value[1] for branch in self._sequence(part, flags)]
        if op == "SUBPATTERN":
            _, added, removed, inner = value
            return self._sequence(inner, (flags | added) & ~removed)
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            return [self._repeat(*value, flags)]
        if op == "AT":
            self._refuse("word boundaries" if "BOUNDARY" in str(value) else "an anchor in the middle of a text")
        if op in _REFUSED or op not in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            self._refuse(_REFUSED.get(op, op.lower()))
        return [self._set(op, value, flags)]

    def _repeat(self, low: int, high: int, inner: Any, flags: int) -> Branch:
        options = self._sequence(inner, flags)
        if any(option.begins or option.ends for option in options):
            self._refuse("an anchor that is repeated")
        body = self._either(options)
        top = "" if high == _parser.MAXREPEAT else str(high)
        known = frozenset([""]) if high == 0 or body.names == {""} else None
        if body.names is not None and top and int(top) <= self._most:
            known = frozenset([""]) if low == 0 else frozenset()
            power: frozenset[str] | None = frozenset([""])
            for count in range(1, int(top) + 1):
                power = self._product(power, body.names)
                if power is None or known is None:
                    known = None
                    break
                if count >= low:
                    known = known | power
        return Branch(f"(?:{body.text}){{{low},{top}}}", False, False, known)

    def _set(self, op: str, value: Any, flags: int) -> Branch:
        items = {"ANY": (), "LITERAL": (("LITERAL", value),), "NOT_LITERAL": (("NEGATE", None), ("LITERAL", value))}
        source = tuple((str(name), what) for name, what in (value if op == "IN" else items[op]))
        props = [what for name, what in source if name == "LITERAL" and what >= _PRIVATE]
        if props:
            inside = "".join(self._properties[what - _PRIVATE] for what in props)
            rest = tuple(entry for entry in source if entry[0] != "NEGATE" and entry[1] not in props)
            negated = "^" if source[0][0] == "NEGATE" else ""
            return Branch(f"[{negated}{inside}{_ranges(_members(rest, flags)) if rest else ''}]", False, False, None)
        if op == "ANY":
            ends = () if flags & re.DOTALL else sorted(_LINE_ENDS) if self._narrow else (ord("\n"),)
            chars = _without(ends)
        else:
            chars = self._chars(source, flags)
        many = sum(last - first + 1 for first, last in chars)
        few = frozenset(chr(c) for first, last in chars for c in range(first, last + 1)) if many <= self._most else None
        return Branch(_written(chars), False, False, few)

    def _chars(self, source: tuple[tuple[str, Any], ...], flags: int) -> Ranges:
        kinds = [str(what).removeprefix("CATEGORY_") for name, what in source if name == "CATEGORY"]
        if not self._narrow or not kinds:
            return _members(source, flags)
        if all(kind in _ASCII for kind in kinds) and not flags & re.IGNORECASE and ("NEGATE", None) not in source:
            # What ASCII has of them, Unicode has as well.
            plain = tuple(entry for entry in source if entry[0] != "CATEGORY")
            return _merged([*_members(plain, flags), *(chars for kind in kinds for chars in _ASCII[kind])])
        return _common(_members(source, flags), _members(source, flags | re.ASCII))

    def _either(self, options: Sequence[Branch]) -> Branch:
        if len(options) == 1:
            return options[0]
        together: frozenset[str] | None = frozenset()
        for option in options:
            together = None if together is None or option.names is None else together | option.names
        return Branch(f"(?:{'|'.join(o.text for o in options)})", False, False, together)

    def _joined(self, a: Branch, b: Branch) -> Branch:
        return Branch(a.text + b.text, a.begins or b.begins, b.ends, self._product(a.names, b.names))

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

    def _refuse(self, what: str) -> None:
        raise UnspoolError(f"the pattern {_short(self._pattern)} uses {what}, which a grammar cannot; write it without")


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:77] + "...")


@lru_cache(maxsize=1)
def _everything() -> str:
    codes = np.concatenate([np.arange(0xD800, dtype="<u4"), np.arange(0xE000, 0x110000, dtype="<u4")])
    return codes.tobytes().decode("utf-32-le")


@lru_cache(maxsize=256)
def _members(source: tuple[tuple[str, Any], ...], flags: int) -> Ranges:
    """The characters of a set, as Python's engine has them."""
    if not flags & re.IGNORECASE and all(name in ("LITERAL", "RANGE") for name, _ in source):
        return _merged((what, what) if name == "LITERAL" else what for name, what in source)
    written = {"NEGATE": lambda _: "^", "LITERAL": _python, "RANGE": lambda r: f"{_python(r[0])}-{_python(r[1])}"}
    written["CATEGORY"] = lambda what: _CATEGORIES[str(what).removeprefix("CATEGORY_")]
    kept = flags & (re.IGNORECASE | re.ASCII)
    finder = re.compile(f"[{''.join(written[name](what) for name, what in source)}]+", kept)
    # Surrogates are left out of the text that is searched, so places behind them are code points moved by 2,048.
    moved = [(m.start(), m.end() - 1) for m in finder.finditer(_everything())]
    return _merged(_code(first, last) for first, last in moved)


def _code(first: int, last: int) -> tuple[int, int]:
    return first + 0x800 * (first >= 0xD800), last + 0x800 * (last >= 0xD800)


def _python(char: int) -> str:
    return f"\\U{char:08x}"


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return tuple(made)


def _without(chars: Iterable[int]) -> Ranges:
    made, at = [], 0
    for char in chars:
        made += [(at, char - 1)] if at < char else []
        at = char + 1
    return (*made, (at, 0x10FFFF))


def _common(a: Ranges, b: Ranges) -> Ranges:
    pairs = ((max(x[0], y[0]), min(x[1], y[1])) for x in a for y in b if x[0] <= y[1] and y[0] <= x[1])
    return _merged(pairs)


def _written(chars: Ranges) -> str:
    if not chars:
        return r"[^\x{0}-\x{10FFFF}]"
    if len(chars) == 1 and chars[0][0] == chars[0][1]:
        return _char(chars[0][0])
    return f"[{_ranges(chars)}]"


def _ranges(chars: Ranges) -> str:
    return "".join(_char(first) if first == last else f"{_char(first)}-{_char(last)}" for first, last in chars)


@lru_cache(maxsize=4096)
def _char(char: int) -> str:
    return chr(char) if char < 128 and chr(char).isalnum() else f"\\x{{{char:x}}}"
