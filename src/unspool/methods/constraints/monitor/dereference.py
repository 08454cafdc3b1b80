"""The monitor of dereferences: after the dot of ``obj.``, only identifiers that the analyser knows there.

Every place has one of four states, read from the place itself: no dereference (everything may follow), directly after
the dot (triggered), in the identifier (only continuations of matching names may follow), or at the end of a name (what
breaks an identifier may follow too). If the analyser knows nothing, or no name with this beginning, there is no
dereference.

Inner dots of a token count if an identifier follows them in the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.methods.constraints.monitor.analyser import Asked
from unspool.methods.constraints.monitor.masks import Vocabulary, merged_dots, spells
from unspool.methods.constraints.monitor.scan import Scanner

_MAY_DEFINE = re.compile(rb"(?:^|[\n;])[ \t]*(?:self|cls)\.$")


class Identifier(NamedTuple):
    """The beginning of an identifier that was to be monitored.

    Attributes:
        merged: whether it is in one token with its dot.
        known: whether the analyser knows it, as far as the token goes.
    """

    merged: bool
    known: bool


class Dereference:
    """Decides which tokens may follow a place, as far as they spell what comes after a dot.

    Args:
        verify: whether inner dots of a token are monitored.
    """

    def __init__(self, vocabulary: Vocabulary, asked: Asked, verify: bool) -> None:
        self._vocabulary = vocabulary
        self._asked = asked
        self._verify = verify

    def is_allowed(self, text: bytes, place: Scanner, token: int) -> bool:
        """Whether ``token`` continues names that may come at the place, and after its inner dots."""
        piece = self._vocabulary.texts[token]
        rests = self._rests(text, place)
        if piece is None:
            return not rests or b"" in rests
        if rests and not (piece and spells(piece, rests)):
            return False
        return not self._verify or all(spells(rest, names) for rest, names in self._inner(text, place, piece))

    def mask(self, text: bytes, place: Scanner) -> NDArray[np.bool_] | None:
        """[vocabulary]; None if everything is permitted."""
        vocabulary, mask = self._vocabulary, None
        if rests := self._rests(text, place):
            ends = [vocabulary.special] if b"" in rests else []
            mask = vocabulary.mask([vocabulary.spellings.allowed(rests), *ends])
        if not self._verify:
            return mask
        for before, spellings in vocabulary.merged.items():
            if mask is not None and not mask[spellings.ids].any():
                continue  # ask nothing that does not matter
            inner = place.copy().read(before + b".")
            if names := self._names(text + before + b".", inner):
                mask = np.ones(len(vocabulary.texts), dtype=np.bool_) if mask is None else mask
                mask[spellings.ids] &= vocabulary.mask([spellings.allowed(names)])[spellings.ids]
        for token in vocabulary.several:
            if (mask is None or mask[token]) and not self.is_allowed(text, place, token):
                mask = np.ones(len(vocabulary.texts), dtype=np.bool_) if mask is None else mask
                mask[token] = False
        return mask

    def identifiers(self, text: bytes, place: Scanner, token: int) -> Iterator[Identifier]:
        """Identifiers that begin with ``token``, which follows the place, verified or not."""
        piece = self._vocabulary.texts[token] or b""
        if place.dot >= 0 and not place.word and (rests := self._rests(text, place)):
            yield Identifier(merged=False, known=spells(piece, rests))
        for rest, names in self._inner(text, place, piece):
            yield Identifier(merged=True, known=spells(rest, names))

    def _names(self, text: bytes, place: Scanner) -> frozenset[bytes]:
        """Identifiers for the dot at the place; empty if there is none or nothing is known."""
        if place.dot < 0:
            return frozenset()
        before = text[: place.dot + 1]
        if not place.open and _MAY_DEFINE.search(before):
            return frozenset()
        return self._asked.names(before, place.closers)

    def _rests(self, text: bytes, place: Scanner) -> frozenset[bytes]:
        """The rest of those identifiers that begin with the word at the place."""
        begun = place.word
        return frozenset(name[len(begun) :] for name in self._names(text, place) if name.startswith(begun))

    def _inner(self, text: bytes, place: Scanner, piece: bytes) -> Iterator[tuple[bytes, frozenset[bytes]]]:
        """The text of a token after each of its inner dots, and the identifiers that may come there."""
        for dot in merged_dots(piece):
            before = piece[: dot + 1]
            if names := self._names(text + before, place.copy().read(before)):
                yield piece[dot + 1 :], names
