"""Reads Python byte by byte and tracks at every place what may be dereferenced, what is a string and what is open.

It is a small scanner of its own, because the text is never complete and is read again from many drafted places: copies
are cheap, and nothing before them is read twice. Python's own tokenizer and parso read whole files. Text that is not
Python is read without an error, as far as possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from keyword import kwlist
from typing import NamedTuple

# No name ends before a byte of a non-ASCII character: in Python only a string or a comment could continue like that.
WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") | frozenset(range(0x80, 0x100))
"""Bytes that continue an identifier; all others break it."""

_KEYWORDS = frozenset(word.encode() for word in kwlist) - {b"True", b"False", b"None"}
_DIGITS = frozenset(b"0123456789")
NAME_START = WORD - _DIGITS
"""Bytes that an identifier may begin with."""

_BLANK = frozenset(b" \t\r\f")
_CLOSING = {ord(")"): b"(", ord("]"): b"[", ord("}"): b"{"}
_CLOSERS = {b"(": b")", b"[": b"]", b"{": b"}", b":": b""}


class Frame(NamedTuple):
    """Something that was opened.

    Attributes:
        kind: the bracket, the quotes of a string, or the colon before the format of a field of an f-string.
        at: where it begins, in bytes.
        call: a bracket around arguments.
        formatted: a string with fields, the format of a field, or the bracket of a field.
    """

    kind: bytes
    at: int
    call: bool = False
    formatted: bool = False

    @property
    def is_text(self) -> bool:
        """Whether its content is text, not code."""
        return self.kind[:1] in (b"'", b'"', b":")


class Scanner:
    """The place after what was read.

    Attributes:
        at: bytes read.
        word: the word that continues here, empty between words.
        dot: where the dot of the dereference is whose identifier continues here; -1 if there is none.
        open: what was opened and not closed, outermost first.
    """

    def __init__(self) -> None:
        self.at = 0
        self.word = b""
        self.dot = -1
        self.open: tuple[Frame, ...] = ()
        self._operand = False  # whether what ended here may be dereferenced or called
        self._named = b""  # the word that ended here
        self._defined = False  # whether that word follows "def" or "class"
        self._comment = self._escaped = False
        self._quotes = 0  # quotes of the string's own kind directly before this place
        self._emptied: Frame | None = None  # a string of two quotes that ended here: a third one makes it a long one

    def copy(self) -> Scanner:
        return copy(self)

    @property
    def callable(self) -> bool:
        """Whether a bracket here would open a call."""
        if self._comment or (self.open and self.open[-1].is_text):
            return False
        return self.dot >= 0 or (_is_operand(self.word) if self.word else self._operand)

    @property
    def closers(self) -> bytes:
        """The bytes that close all that is open."""
        return b"".join(_CLOSERS.get(frame.kind, frame.kind) for frame in reversed(self.open))

    def read(self, text: bytes) -> Scanner:
        """Continue over ``text``; returns itself."""
        for byte in text:
            self.step(byte)
        return self

    def closed(self, text: bytes) -> Iterator[tuple[Frame, int]]:
        """Continue over ``text``; yields the calls that end in it and where their closing brackets are."""
        for byte in text:
            before = self.open
            self.step(byte)
            if len(self.open) < len(before) and before[-1].call:
                yield before[-1], self.at - 1

    def step(self, byte: int) -> None:
        """Continue over one byte."""
        top = self.open[-1] if self.open else None
        if self._comment:
            if byte == ord("\n"):
                self._comment = False
                self._operand = self._operand and bool(self.open)
        elif top is not None and top.is_text:
            self._text(byte, top)
        elif byte in WORD:
            self.word += bytes((byte,))
        else:
            self._code(byte, top)
        self.at += 1

    def _text(self, byte: int, top: Frame) -> None:
        quotes, self._quotes = self._quotes, 0
        if self._escaped:
            self._escaped = False
        elif byte == ord("\\"):
            self._escaped = True
        elif byte == top.kind[0] and top.kind != b":":
            self._quotes = quotes + 1
            if self._quotes == len(top.kind):
                self._quotes = 0
                self._pop(operand=True)
                self._emptied = top if len(top.kind) == 1 and top.at == self.at - 1 else None
        elif byte == ord("\n") and len(top.kind) == 1 and top.kind != b":":
            self._pop(operand=False)  # an unclosed string
        elif byte == ord("{") and top.formatted:
            self._push(Frame(b"{", self.at, formatted=True))
        elif byte == ord("}") and top.kind == b":":
            self._pop(operand=False)
            self._pop(operand=False)

    def _code(self, byte: int, top: Frame | None) -> None:
        prefix, emptied = self.word.lower(), self._emptied
        self._end_word()
        self._emptied = None
        escaped, self._escaped = self._escaped, byte == ord("\\")
        if byte in _BLANK or byte == ord("\\"):
            return
        operand, defined = self._operand, self._defined
        self._operand, self._named, self._defined = False, b"", False
        if byte in b"'\"":
            if emptied is not None and emptied.kind[0] == byte and emptied.at == self.at - 2:
                self._push(emptied._replace(kind=emptied.kind * 3))
            else:
                self._push(Frame(bytes((byte,)), self.at, formatted=prefix in (b"f", b"t", b"fr", b"rf", b"tr", b"rt")))
        elif byte == ord("#"):
            self._comment, self._operand = True, operand
        elif byte == ord("\n"):
            self._operand = operand and (escaped or top is not None)  # only then does a chain of calls continue
        elif byte == ord("."):
            self.dot = self.at if operand else -1
        elif byte == ord("{") and top is not None and top.formatted and top.at == self.at - 1:
            self._pop(operand=False)  # two of them are not a field
        elif byte in b"([{":
            self._push(Frame(bytes((byte,)), self.at, call=byte == ord("(") and operand and not defined))
        elif byte in _CLOSING:
            if top is not None and top.kind == _CLOSING[byte]:
                self._pop(operand=not top.formatted)
            else:
                self._operand = True
        elif byte == ord(":") and top is not None and top.kind == b"{" and top.formatted:
            self._push(Frame(b":", self.at, formatted=True))

    def _end_word(self) -> None:
        if self.word:
            self._operand = self.dot >= 0 or _is_operand(self.word)
            self._defined = self._named in (b"def", b"class")
            self._named, self.word = self.word, b""
        self.dot = -1

    def _push(self, frame: Frame) -> None:
        self.open += (frame,)

    def _pop(self, operand: bool) -> None:
        self.open = self.open[:-1]
        self._operand = operand


def _is_operand(word: bytes) -> bool:
    return word[0] not in _DIGITS and word not in _KEYWORDS
