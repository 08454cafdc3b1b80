"""The request, the events and the result of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unspool.engine import numeric
from unspool.engine.contracts import LanguageModel, Logits
from unspool.engine.trace import FinishReason

Output = tuple[int, ...]
"""A branch: the tokens after the prompt."""


@dataclass(frozen=True)
class SearchEvent:
    """An event of a search. Methods add their own."""


@dataclass(frozen=True)
class PassEvent(SearchEvent):
    """Branches were read.

    Attributes:
        branches: number of branches.
        nodes: tokens that the model evaluated for them.
        evaluated_tokens: tokens evaluated since the prefill, these included.
        ms: milliseconds in the model.
    """

    branches: int
    nodes: int
    evaluated_tokens: int
    ms: float


OnEvent = Callable[[SearchEvent], None]


@dataclass(frozen=True)
class SearchRequest:
    """One prompt to continue by a search.

    Attributes:
        model: the language model.
        prompt: its ids, at least one.
        max_new_tokens: maximum length of an output.
        eos: ids that end an output; the ending id is part of it.
        stopping: whether an output is finished for another reason than end of text or length.
        reward: of a finished output, 0 to 1; only for methods that plan with it.
        on_event: receives the events, in the thread that searches.
    """

    model: LanguageModel
    prompt: Sequence[int]
    max_new_tokens: int
    eos: frozenset[int] = frozenset()
    stopping: Callable[[Output], bool] = lambda output: False
    reward: Callable[[Output], float] | None = None
    on_event: OnEvent = lambda event: None

    def ended(self, output: Output) -> FinishReason | None:
        """Why the model cannot extend an output, whatever its length; None if it can."""
        if output and output[-1] in self.eos:
            return "stop"
        return "stopping_criteria" if self.stopping(output) else None

    def finished(self, output: Output) -> FinishReason | None:
        """Why an output is finished: ``ended``, or the maximum length."""
        return self.ended(output) or ("length" if len(output) >= self.max_new_tokens else None)


@dataclass(frozen=True)
class Candidate:
    """An output that a search found.

    Attributes:
        token_ids: the output.
        logprob: its log-probability under the model, in nats.
        score: what the method ranks by; higher is better.
        finish_reason: as in ``Result``.
    """

    token_ids: Output
    logprob: float
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        candidates: best first, at least one.
        passes, evaluated_tokens: as counted by ``Frontier``.
        counts: the method's own figures.
    """

    candidates: tuple[Candidate, ...]
    passes: int
    evaluated_tokens: int
    counts: Mapping[str, float]


class Distribution:
    """The model's distribution after a branch: the whole vocabulary at temperature 1.

    Attributes:
        logits: [vocabulary], a copy.
    """

    def __init__(self, logits: Logits) -> None:
        self.logits = logits.copy()

    @cached_property
    def _total(self) -> float:
        return numeric.log_sum_exp(self.logits)

    def logprob(self, token: int) -> float:
        """Log-probability of a token in nats."""
        return float(self.logits[token]) - self._total

    @cached_property
    def best(self) -> int:
        """The token of greedy decoding: the argmax, lowest id first among equals."""
        return int(np.argmax(self.logits))

    def top(self, k: int) -> tuple[tuple[int, float], ...]:
        """The ``k`` most likely (id, log-probability), best first, lowest id first among equals; none at -inf."""
        (ids,), (values,) = numeric.top_k(self.logits[None], k)
        return tuple((int(i), float(v) - self._total) for i, v in zip(ids, values, strict=True) if v > -np.inf)

    @cached_property
    def entropy(self) -> float:
        """Shannon entropy in nats, at least 0."""
        shifted = self.logits - self.logits.max()
        weights = np.exp(shifted)
        shifted[weights == 0] = 0  # 0 · log 0 is 0
        total = float(weights.sum(dtype=np.float64))
        return max(0.0, float(np.log(total)) - float(np.multiply(weights, shifted).sum(dtype=np.float64)) / total)


@dataclass
class Branch:
    """A growing branch.

    Attributes:
        output: its tokens.
        logprob: sum of the log-probabilities of its scored tokens.
    """

    output: Output
    logprob: float = 0.0

    def extend(self, token: int, logprob: float) -> None:
        self.output = (*self.output, token)
        self.logprob += logprob
