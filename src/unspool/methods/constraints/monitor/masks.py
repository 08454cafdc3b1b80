"""Which tokens continue one of some names: look-ups in the sorted texts of a vocabulary."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from unspool.methods.constraints.monitor.scan import NAME_START, WORD
from unspool.models.texts import token_texts
from unspool.models.tokenizer import Tokenizer

_REMEMBERED = 128
"""Sets of names whose tokens are cached."""

_vocabularies: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()


class Spellings:
    """Tokens by what they spell.

    Args:
        texts: by token, the part of its text that counts; not empty.
    """

    def __init__(self, texts: Mapping[int, bytes]) -> None:
        order = sorted(texts, key=lambda token: texts[token])
        self._texts = [texts[token] for token in order]
        self.ids = np.array(order, dtype=np.int64)
        self._spans: dict[bytes, slice] = {}
        for index, text in enumerate(self._texts):
            self._spans[text] = slice(self._spans.get(text, slice(index, 0)).start, index + 1)
        self._breaking = np.array([text[0] not in WORD for text in self._texts], dtype=np.bool_)
        self.allowed = lru_cache(maxsize=_REMEMBERED)(self._allowed)

    def _allowed(self, names: frozenset[bytes]) -> NDArray[np.int64]:
        """Tokens that are a beginning of a name, or a whole name followed by a break. An empty name is one that is
        complete."""
        chosen = np.zeros(len(self._texts), dtype=np.bool_)
        for name in names:
            if not name:
                chosen |= self._breaking
                continue
            for end in range(1, len(name) + 1):
                if (span := self._spans.get(name[:end])) is not None:
                    chosen[span] = True
            # All breaks are ASCII.
            for index in range(bisect_right(self._texts, name), bisect_left(self._texts, name + b"\x80")):
                if self._texts[index][len(name)] not in WORD:
                    chosen[index] = True
        return self.ids[chosen]


class Vocabulary:
    """The tokens of a model, in the forms that monitors use.

    Args:
        texts: as returned by ``token_texts``.

    Attributes:
        texts: the same.
        special: ids of special tokens.
        spellings: of all others.
        merged: tokens with a dot followed by the beginning of an identifier, by the text before that dot, as what they
            spell after it.
        several: those of them that contain a second such dot.
        closing: ids of tokens that contain a closing bracket.
    """

    def __init__(self, texts: Sequence[bytes | None]) -> None:
        self.texts = texts
        self.special = np.array([token for token, text in enumerate(texts) if text is None], dtype=np.int64)
        known = {token: text for token, text in enumerate(texts) if text}
        self.spellings = Spellings(known)
        groups: dict[bytes, dict[int, bytes]] = {}
        several = []
        for token, text in known.items():
            dots = merged_dots(text)
            if dots:
                groups.setdefault(text[: dots[0]], {})[token] = text[dots[0] + 1 :]
            if len(dots) > 1:
                several.append(token)
        self.merged = {before: Spellings(rests) for before, rests in groups.items()}
        self.several = several
        self.closing = [token for token, text in known.items() if b")" in text]

    def mask(self, ids: Iterable[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """[vocabulary] True for these tokens."""
        mask = np.zeros(len(self.texts), dtype=np.bool_)
        for some in ids:
            mask[some] = True
        return mask


def merged_dots(text: bytes) -> list[int]:
    """Positions of dots that an identifier follows in the same text."""
    return [at for at in range(len(text) - 1) if text[at] == ord(".") and text[at + 1] in NAME_START]


def spells(piece: bytes, names: frozenset[bytes]) -> bool:
    """Whether a text is a beginning of a name, or a whole name followed by a break."""
    end = next((at for at, byte in enumerate(piece) if byte not in WORD), None)
    return any(name.startswith(piece) for name in names) if end is None else piece[:end] in names


def monitor_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The tokens in the forms that monitors use; made once per tokenizer."""
    known = _vocabularies.get(tokenizer)
    if known is None or len(known.texts) != vocab_size:
        known = _vocabularies[tokenizer] = Vocabulary(token_texts(tokenizer, vocab_size))
    return known
