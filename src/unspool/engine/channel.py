"""Channels: codes that carry data through something that makes errors. No language model takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Edit = Literal["substitution", "deletion", "insertion"]
Word = tuple[int, ...]


@dataclass(frozen=True)
class Decoded:
    """One explanation of an observation.

    Attributes:
        data: what was sent.
        score: what candidates are ranked by, larger is better; log-probability where the channel has one.
    """

    data: Word
    score: float


class Channel(Protocol):
    """A code and its decoder.

    Attributes:
        inputs: number of different data symbols, which are 0 to ``inputs - 1``.
        outputs: number of different code symbols.
        corrects: errors of which any single one is corrected, whatever symbol it hits.
    """

    inputs: int
    outputs: int
    corrects: frozenset[Edit]

    def encode(self, data: Sequence[int]) -> Word:
        """Code symbols of data symbols; the empty data too."""
        ...

    def decode(self, observation: Sequence[int]) -> list[Decoded]:
        """What may have been sent, best first; empty if nothing explains the observation."""
        ...
