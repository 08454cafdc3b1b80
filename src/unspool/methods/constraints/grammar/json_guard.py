"""What a JSON grammar cannot express: each name at most once in an object, and numbers that every reader supports.

``JsonGuard`` follows the text byte by byte and refuses

- the quote that would close a name that its object already has, so that parsing loses nothing and properties are
  counted correctly;
- escapes of characters that need none, and names whose longer spelling would hide that they are known;
- numbers of more than 100 digits before or after the point, or an exponent above 99: ``1e400`` is infinity to most
  readers, and Python reads no integer of more than 4,300 digits.

States are values, so an abandoned path costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_DIGITS = 100
_EXPONENT_DIGITS = 2

_SHORT = {f"\\{c}".encode() for c in '"\\bfnrt'}
_LONG = {f"\\u{c:04x}".encode(): b"" for c in (*range(0x20), 0x7F)}
_LONG |= {f"\\u{ord(c):04x}".encode(): json.dumps(c)[1:-1].encode() for c in "\b\f\n\r\t"}
"""The short escape of the same character, by the long one."""
_BEGUN = {escape[:n] for escape in (*_SHORT, *_LONG) for n in range(1, len(escape))}

_BETWEEN, _TEXT, _NAME, _NUMBER = range(4)
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]

Frame = tuple[Any, Any]
"""An open bracket: the names of an object so far (None for an array), and the bracket around it."""


class State(NamedTuple):
    """The position in the text.

    Attributes:
        mode: between lexemes, in a text, in a name, or in a number.
        frame: the innermost open bracket.
        is_name: whether the next text is a name.
        raw: the name so far.
        is_long: whether a character of the name has the longer spelling.
        escape: the escape that has begun.
        part: of a number: 0 before the point, 1 after it, 2 exponent.
        digits: digits of this part.
    """

    mode: int = _BETWEEN
    frame: Frame | None = None
    is_name: bool = False
    raw: bytes = b""
    is_long: bool = False
    escape: bytes = b""
    part: int = 0
    digits: int = 0

    @property
    def wants_name(self) -> bool:
        """Whether a name has begun or must come next."""
        return self.mode == _NAME or (self.mode == _BETWEEN and self.is_name)

    def shares(self) -> bool:
        """Whether a name of this object has the same beginning as the current one."""
        used: frozenset[bytes] = (self.frame[0] if self.frame else None) or frozenset()
        return any(name.startswith(self.raw) for name in used)


def step(state: State, byte: int, known: frozenset[bytes] = frozenset()) -> State | None:
    """The state after one more byte that the grammar allows; None if the guard refuses it."""
    mode = state.mode
    if mode in (_TEXT, _NAME):
        return _in_text(state, byte, known)
    if mode == _NUMBER:
        if 48 <= byte <= 57:
            most = _EXPONENT_DIGITS if state.part == 2 else _DIGITS
            return state._replace(digits=state.digits + 1) if state.digits < most else None
        if byte in b".eE":
            return state._replace(part=1 if byte == 46 else 2, digits=0)
        if byte in b"+-":
            return state
        state = State(frame=state.frame)
    return _between(state, byte)


def _between(state: State, byte: int) -> State:
    frame = state.frame
    if byte == _QUOTE:
        return State(_NAME if state.is_name else _TEXT, frame)
    if byte == 123:  # {
        return State(frame=(frozenset(), frame), is_name=True)
    if byte == 91:  # [
        return State(frame=(None, frame))
    if byte in b"]}":
        return State(frame=frame[1] if frame else None)
    if byte == 44:  # ,
        return State(frame=frame, is_name=bool(frame) and frame[0] is not None)  # type: ignore[index]
    if byte == 58:  # :
        return State(frame=frame)
    if byte == 45 or 48 <= byte <= 57:
        return State(_NUMBER, frame, digits=int(byte != 45))
    return state  # white space, true, false, null


def _in_text(state: State, byte: int, known: frozenset[bytes]) -> State | None:
    if state.escape:
        escape = state.escape + (bytes((byte,)).lower() if len(state.escape) > 1 else bytes((byte,)))
        if escape in _SHORT or escape in _LONG:
            short = _LONG.get(escape)
            raw = state.raw + (short or escape) if state.mode == _NAME else b""
            return state._replace(escape=b"", raw=raw, is_long=state.is_long or bool(short))
        return state._replace(escape=escape) if escape in _BEGUN else None
    if byte == _BACKSLASH:
        return state._replace(escape=b"\\")
    if byte != _QUOTE:
        return state._replace(raw=state.raw + bytes((byte,))) if state.mode == _NAME else state
    if state.mode == _TEXT:
        return State(frame=state.frame)
    assert state.frame is not None
    used, around = state.frame
    if state.is_long and state.raw in known:
        return None
    return None if state.raw in used else State(frame=(used | {state.raw}, around))


class JsonGuard:
    """Guards the tokens of one vocabulary.

    Args:
        vocabulary: the tokens.
        names: of a schema's properties that can be spelled in two ways.
    """

    def __init__(self, vocabulary: LLTokenizer, names: Iterable[str] = ()) -> None:
        self._texts, self._quoted = _texts(vocabulary)
        self._known = frozenset(json.dumps(name, ensure_ascii=False)[1:-1].encode() for name in names)

    def after(self, state: State, token: int) -> State | None:
        """The state after a token that the grammar allows; None if the guard refuses it."""
        now: State | None = state
        text = self._texts[token]
        if state.mode == _TEXT and not state.escape and not self._quoted[token]:
            return state
        for byte in text:
            now = step(now, byte, self._known)  # type: ignore[arg-type]
            if now is None:
                return None
        return now

    def doubtful(self, state: State, mask: NDArray[np.bool_]) -> list[int]:
        """The tokens of a mask that ``after`` may refuse."""
        if state.mode in (_TEXT, _NAME) and not state.escape:
            mask = mask & self._quoted
        return [int(token) for token in np.flatnonzero(mask)]


@lru_cache(maxsize=4)
def _texts(vocabulary: LLTokenizer) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Of every token: its bytes, and whether a quote or a backslash is among them."""
    texts = [vocabulary.decode_bytes([token]) for token in range(vocabulary.vocab_size)]
    return texts, np.array([b'"' in text or b"\\" in text for text in texts])
