"""Plain decoding's output for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A prompt and plain decoding's output.

    Attributes:
        number: of the prompt in its file, from 0; unique among the cases that are judged together.
        prompt: ids of the prompt.
        seed: of the run.
        token_ids: the output, at least one token.
        margins: per output token, its lead over the runner-up, from the trace.
    """

    number: int
    prompt: Sequence[int]
    seed: int
    token_ids: Sequence[int]
    margins: Sequence[float]
