"""Decodes ids to text one by one. The pieces add up to the text of all ids, whatever the ids are."""

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
# After a letter that is in none of these, or four characters without a space, nothing earlier can change.
_SETTLED = re.compile(r"[^ .?!,'ntmsver]|[^ ]{4}")


def cleaned(text: str) -> str:
    """A text without the spaces that WordPiece tokenizers add before punctuation."""
    for spaced in _CLEANED:
        text = text.replace(spaced, spaced.strip())
    return text


def shared(one: str, other: str) -> int:
    """Length of the common prefix of two texts, in characters."""
    if other.startswith(one):
        return len(one)
    return next(i for i, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])


class TextStream:
    """Decodes ids one by one. Text is held back while a later id can still change it.

    Args:
        tokenizer: of the model.
        context: ``Tokenizer.context`` of the ids before the first one.
        skip_special_tokens: whether special tokens are left out.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = (), skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window = list(context)  # what a decoder must see to write the next token as it does after all ids
        self._given = self._decode()  # the window's text that was emitted, or was there before
        self._open = False  # whether the text may end within a run of bytes
        self._unclean = ""

    def push(self, token: int) -> str:
        """The text that this id makes final; often empty."""
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
        """The held-back text, if this is the end."""
        whole = self._decode()
        rest = whole[self._start(whole) :]
        return cleaned(self._unclean + rest) if self._tokenizer.settings.clean_up else rest

    def _decode(self) -> str:
        return self._tokenizer.decode_raw(self._window, self._skip)

    def _start(self, whole: str) -> int:
        # Shorter than what was emitted only if the prompt ended within a character.
        return shared(self._given, whole)

    def _clean(self, piece: str) -> str:
        if not self._tokenizer.settings.clean_up:
            return piece
        text = self._unclean + piece
        end = max((found.end() for found in _SETTLED.finditer(text)), default=0)
        self._unclean = text[end:]
        return cleaned(text[:end])


class StopStrings:
    """Ends a text at the first stop string. One object serves one sequence; ``text`` is cut before the string.

    The strings are searched in the raw text, where special tokens are spelled out; ``text`` has none.

    Args:
        tokenizer: of the model.
        strings: one or several, none of them empty.
        context: ``Tokenizer.context`` of the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, strings: str | Sequence[str], context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._strings = (strings,) if isinstance(strings, str) else tuple(strings)
        self._reach = max(len(s) for s in self._strings) - 1
        self._context = list(context)
        self._ids: list[int] = []
        self._raw, self._clean = TextStream(tokenizer, context, False), TextStream(tokenizer, context)
        self._tail, self._read = "", 0  # the end of the raw text within reach of a string; the whole length
        self._text = ""
        self._cut: str | None = None
        self._safe = 0
        self._steps: deque[tuple[int, int]] = deque()  # lengths of the raw text and of the text after each token

    @property
    def text(self) -> str:
        """The text so far, cut before the string that ended it."""
        return self._text + self._clean.rest() if self._cut is None else self._cut

    @property
    def safe(self) -> int:
        """Length of the prefix of ``text``, in characters, that no stop string can take back."""
        return self._safe if self._cut is None else len(self._cut)

    def __call__(self, token: int) -> FinishReason | None:
        self._ids.append(token)
        piece = self._raw.push(token)
        self._text += self._clean.push(token)
        # Held-back text is searched too: it is the text if this is the end.
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

        # All tokens that end before the string begins, and not within a character.
        whole = raw(len(self._ids))
        n = next(n for n in range(len(self._ids) - 1, -1, -1) if len(raw(n)) <= at and whole.startswith(raw(n)))
        text = self._tokenizer.text(self._ids[:n], self._context)
        if len(raw(n)) == at or self._tokenizer.is_special(self._ids[n]):
            return text
        return self._tokenizer.text(self._ids, self._context)[: len(text) + at - len(raw(n))]


class Forms:
    """How a tokenizer's decoder writes text.

    Args:
        decoder: as in ``tokenizer.json``; None: tokens are joined by spaces.

    Attributes:
        bytes: whether there are single-byte tokens. A run of them is decoded as a whole: one invalid byte turns all of
            them into ``U+FFFD``.
        stepwise: whether a token with a visible character makes the earlier text final, and later text depends on
            nothing before but that token. If that is uncertain, text is only emitted at the end.
    """

    def __init__(self, decoder: dict[str, Any] | None) -> None:
        steps = [] if decoder is None else decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        self.bytes = any(step["type"] == "ByteFallback" for step in steps)
        self.stepwise = True
        alone = ("ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Fuse", "ByteFallback", "Replace", "Strip")
        joined = False  # from here on there is one string, not one per token
        for step in steps:
            kind = step["type"]
            if joined:
                # At most one character is removed from the start of the first token, as other libraries do.
                self.stepwise &= kind == "Fuse" or (kind == "Strip" and step["start"] <= 1 and step["stop"] == 0)
            else:
                self.stepwise &= kind in alone
            joined |= kind in ("Fuse", "ByteLevel")
