"""Text made of ids one by one: it adds up to the text of all ids, whatever the ids are."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from unspool.engine.trace import FinishReason

if TYPE_CHECKING:
    from unspool.models.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_PARTIAL = "\ufffd"

# transformers' ``clean_up_tokenization``.
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
# Behind a letter that stands in none of these, or four characters without a space, nothing before can change.
_SETTLED = re.compile(r"[^ .?!,'ntmsver]|[^ ]{4}")


def cleaned(text: str) -> str:
    """A text without the spaces that WordPiece tokenizers write before punctuation."""
    for spaced in _CLEANED:
        text = text.replace(spaced, spaced.strip())
    return text


def shared(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    return next(i for i, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])


class TextStream:
    """Decodes ids one by one. Text is held back until no further id can change it.

    Args:
        tokenizer: of the model.
        context: what ``Tokenizer.context`` gives of the ids before the first one.
        skip_special_tokens: whether special tokens are left out.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = (), skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window = list(context)  # what a decoder has to see to write the next token as it does behind all of them
        self._given = self._decode()  # the window's text that is out, or stood before
        self._open = False  # whether the text may end within a run of bytes
        self._unclean = ""

    def push(self, token: int) -> str:
        """The text that is settled with this id; often empty."""
        if not self._tokenizer.has_piece(token) or (self._skip and self._tokenizer.is_special(token)):
            return ""
        self._window.append(token)
        forms = self._tokenizer.forms
        self._open = forms.bytes and _BYTE.fullmatch(self._tokenizer.token(token)) is not None
        if self._open or not forms.stepwise:
            return ""
        whole = self._decode()
        start = self._start(whole)
        piece = whole[start : len(whole) - whole.endswith(_PARTIAL)]
        if piece:
            self._given = whole[:start] + piece
            if start + len(piece) == len(whole) and self._tokenizer.is_solid(token):
                self._window = [token]
                self._given = self._decode()
        return self._clean(piece)

    def rest(self) -> str:
        """The text that is held back, if this is the end."""
        whole = self._decode()
        rest = whole[self._start(whole) :]
        return cleaned(self._unclean + rest) if self._tokenizer.settings.clean_up else rest

    def _decode(self) -> str:
        return self._tokenizer.decode_raw(self._window, self._skip)

    def _start(self, whole: str) -> int:
        # Less than all that was given only where the prompt ended within a character.
        return shared(self._given, whole)

    def _clean(self, piece: str) -> str:
        if not self._tokenizer.settings.clean_up:
            return piece
        text = self._unclean + piece
        end = max((found.end() for found in _SETTLED.finditer(text)), default=0)
        self._unclean = text[end:]
        return cleaned(text[:end])


class StopStrings:
    """Ends a text at the first of some strings. One object serves one sequence; ``text`` is cut before the string.

    The strings are looked for in the raw text, where special tokens are spelled out; ``text`` has none.

    Args:
        tokenizer: of the model.
        strings: one, or several; none of them empty.
        context: what ``Tokenizer.context`` gives of the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, strings: str | Sequence[str], context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._strings = (strings,) if isinstance(strings, str) else tuple(strings)
        self._reach = max(len(s) for s in self._strings) - 1
        self._context = list(context)
        self._ids: list[int] = []
        self._raw, self._clean = TextStream(tokenizer, context, False), TextStream(tokenizer, context)
        self._tail, self._read = "", 0  # the end of the raw text, as far as a string may reach back; its whole length
        self._text = ""
        self._cut: str | None = None
        self._safe = 0
        self._steps: deque[tuple[int, int]] = deque()  # lengths of the raw text and of the text behind each token

    @property
    def text(self) -> str:
        """The text so far, cut before the string that ended it."""
        return self._text + self._clean.rest() if self._cut is None else self._cut

    @property
    def safe(self) -> int:
        """Characters at the beginning of ``text`` that no stop string can take back."""
        return self._safe if self._cut is None else len(self._cut)

    def __call__(self, token: int) -> FinishReason | None:
        self._ids.append(token)
        piece = self._raw.push(token)
        self._text += self._clean.push(token)
        # What is held back is looked at as well: it is the text if this is the end.
        looked = self._tail + piece + self._raw.rest()
        if found := [at for s in self._strings if (at := looked.find(s)) >= 0]:
            self._cut = self._before(self._read - len(self._tail) + min(found))
            return "stop_string"
        self._read += len(piece)
        kept = self._tail + piece
        self._tail = kept[max(0, len(kept) - self._reach) :]
        self._steps.append((self._read, len(self._text)))
        while self._steps and self._steps[0][0] <= self._read - self._reach:
            self._safe = self._steps.popleft()[1]
        return None

    def _before(self, at: int) -> str:
        """The text up to character ``at`` of the raw text."""

        def raw(n: int) -> str:
            return self._tokenizer.text(self._ids[:n], self._context, skip_special_tokens=False)

        # As many tokens as end before the string begins, and not within a character.
        whole = raw(len(self._ids))
        n = next(n for n in range(len(self._ids) - 1, -1, -1) if len(raw(n)) <= at and whole.startswith(raw(n)))
        text = self._tokenizer.text(self._ids[:n], self._context)
        if len(raw(n)) == at or self._tokenizer.is_special(self._ids[n]):
            return text
        return self._tokenizer.text(self._ids, self._context)[: len(text) + at - len(raw(n))]


class Forms:
    """How a tokenizer's decoder writes text.

    Args:
        decoder: as ``tokenizer.json`` holds it; None: tokens are joined by spaces.

    Attributes:
        bytes: whether there are tokens of single bytes. A run of them is text only as a whole: one byte that does not
            fit makes all of them ``U+FFFD``.
        stepwise: whether, behind a token with a visible character, nothing changes what stood before, and nothing of
            before changes what comes but that token itself. Where that is not sure text comes at the end alone.
    """

    def __init__(self, decoder: dict[str, Any] | None) -> None:
        steps = [] if decoder is None else decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        self.bytes = any(step["type"] == "ByteFallback" for step in steps)
        self.stepwise = True
        alone = ("ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Fuse", "ByteFallback", "Replace", "Strip")
        joined = False  # from here on there is one string, not one a token
        for step in steps:
            kind = step["type"]
            if joined:
                # At the beginning, one character at most, is taken from the first token, as others do.
                self.stepwise &= kind == "Fuse" or (kind == "Strip" and step["start"] <= 1 and step["stop"] == 0)
            else:
                self.stepwise &= kind in alone
            joined |= kind in ("Fuse", "ByteLevel")
