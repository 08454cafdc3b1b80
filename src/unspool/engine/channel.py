"""Channels: error-correcting codes for data sent over a noisy channel. No language model is involved."""

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
        score: ranks candidates, larger is better; log-probability if the channel has one.
    """

    data: Word
    score: float


class Channel(Protocol):
    """A code and its decoder.

    Attributes:
        inputs: number of data symbols, which are 0 to ``inputs - 1``.
        outputs: number of code symbols.
        corrects: kinds of error of which any single one, at any symbol, is corrected.
    """

    inputs: int
    outputs: int
    corrects: frozenset[Edit]

    def encode(self, data: Sequence[int]) -> Word:
        """Code symbols of data symbols; data may be empty."""
        ...

    def decode(self, observation: Sequence[int]) -> list[Decoded]:
        """What may have been sent, best first; empty if nothing explains the observation."""
        ...
