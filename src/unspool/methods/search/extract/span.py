"""Spans: where they may begin and end, which are requested, and their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.option import Options, option


@dataclass(frozen=True)
class ExtractOptions(Options):
    """Which spans are requested, and how they are searched.

    Attributes:
        top_k: number of spans of different text, at least 1.
        max_span_tokens: longest span, at least 1.
        length_penalty: spans are ranked by log-probability / (tokens + 1) ** ``length_penalty``; 0 or more. 0 ranks by
            probability, 1 by the mean of a token, the paper's variant.
        best_first: whether to skip spans that cannot be among the best. Affects only the cost.
        pass_nodes: most nodes of one pass, at least 1; a single longer path still goes into one pass. None: 32 for
            best-first, else the widest pass that the model pads to. Affects only the cost.
    """

    top_k: int = option(1, least=1)
    max_span_tokens: int = option(32, least=1)
    length_penalty: float = option(0.0, least=0, below=math.inf)
    best_first: bool = True
    pass_nodes: int | None = option(None, least=1)


@dataclass(frozen=True)
class Suffix:
    """A place of the passage where a span may begin, and one way to write what follows.

    Attributes:
        start: index into the passage.
        tokens: ids of the passage from there on.
        ends: per token, index after the span that ends with it; None where no span may end.
    """

    start: int
    tokens: tuple[int, ...]
    ends: tuple[int | None, ...]


@dataclass(frozen=True)
class Span:
    """A span and its score.

    Attributes:
        start, end: the span is ``passage[start:end]``.
        token_ids: m ids, as they were scored.
        logprobs: m + 1 log-probabilities: ``l`` of each token, and ``e`` of the end after them.
    """

    start: int
    end: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def logprob(self) -> float:
        """Log-probability that the model writes the span and then ends: the sum of ``logprobs``."""
        return sum(self.logprobs)

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True)
class Found:
    """The best spans and their cost.

    Attributes:
        spans: best first; fewer than ``top_k`` if the passage has no more.
        passes: of the model, without the prompt's.
        nodes: nodes scored in them; beginnings that later passes need again are counted again.
    """

    spans: tuple[Span, ...]
    passes: int
    nodes: int


def suffixes(passage: Sequence[int]) -> list[Suffix]:
    """The suffixes of a passage of ids; every position is a start and an end."""
    n = len(passage)
    return [Suffix(i, tuple(passage[i:]), tuple(range(i + 1, n + 1))) for i in range(n)]
