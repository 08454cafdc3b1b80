"""The draft model of ``auto``: a chain that is begun, and goes on, only while its next token pays.

Unlike tables and automata a draft model is dear, so its price is part of the choice: a chain is begun if a chain of
some length promises more tokens per millisecond than the other drafts, and goes on while one of the next tokens raises
that. What a token's own probability under the draft model says about its acceptance is learned by ``auto``'s rates, as
for every source; before a token is known the mean over all of them is taken. A text that the draft model has not read
yet makes beginning dearer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel
from unspool.engine.cost import PassCosts

SOURCE = "draft_model"

UNSEEN = -1
"""Bucket of a token that was not drafted yet."""

_BUCKETS = 8
_LONGEST = 16
_AHEAD = 4
"""Tokens that are looked ahead when a chain is to go on: passes have steps in their price."""

_READ = 16
"""Tokens that are read in about the time in which one is written."""

_PASSES = 16
"""Over which the price of reading what is missing is spread."""

Rate = Callable[[int, int], float]
"""Chance that a token of this bucket and depth is right, given that those before it are."""


def bucket(probability: float) -> int:
    """In which a token of this probability is learned."""
    return min(int(probability * _BUCKETS), _BUCKETS - 1)


def prior(bucket: int) -> float:
    """How often such a token is right before anything was seen: the draft model is believed."""
    return 0.7 if bucket == UNSEEN else (bucket + 0.5) / _BUCKETS


class AutoAssistant:
    """Writes chains for one sequence.

    Args:
        model: the draft model.
        vocab_size: of the target.
        costs: knows what a drafted token takes.
    """

    def __init__(self, model: LanguageModel, vocab_size: int, costs: PassCosts) -> None:
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size
        self._costs = costs

    def chain(
        self, context: Context, budget: int, rate: Rate, cost: NDArray[np.float64], other: float
    ) -> list[tuple[int, int]]:
        """Token and bucket of each node below the root; nothing where drafting does not pay.

        Args:
            budget: most nodes, root included.
            cost: milliseconds of a pass over 1, 2, ... nodes.
            other: tokens per millisecond that are to be had without a chain.
        """
        longest = min(budget - 1, _LONGEST, len(cost) - 1, self._assistant.levels(context.tokens))
        reading = self._assistant.missing(context.tokens) / _READ * self._costs.drafted_ms / _PASSES
        if longest < 1 or self._best(1.0, 1.0, 0, longest, rate, cost + reading) <= other:
            return []
        draws = Draws(context, self._vocab_size)
        silent = draws.greedy or context.tests_draws  # a rule that tests draws is given tokens that were chosen
        chain: list[tuple[int, int]] = []
        expected = reach = 1.0
        begun = time.perf_counter()
        self._assistant.follow(context.tokens)
        while len(chain) < longest:
            logprobs = draws.logprobs(self._assistant.step(chain[-1][0] if chain else context.tokens[-1]))
            token = int(np.argmax(logprobs if silent else logprobs + draws.noise(len(chain))))
            chain.append((token, bucket(float(np.exp(logprobs[token])))))
            if len(chain) > 1:  # the first pass also reads what is missing
                self._costs.drafted((time.perf_counter() - begun) * 1000)
            begun = time.perf_counter()
            reach *= rate(chain[-1][1], len(chain))
            expected += reach
            ahead = min(longest, len(chain) + _AHEAD)
            if self._best(expected, reach, len(chain), ahead, rate, cost) <= self._speed(expected, len(chain), cost):
                break
        return chain

    def _best(
        self, expected: float, reach: float, length: int, longest: int, rate: Rate, cost: NDArray[np.float64]
    ) -> float:
        """Most tokens per millisecond of a chain that grows from ``length`` tokens to at most ``longest``."""
        best = 0.0
        for n in range(length + 1, longest + 1):
            reach *= rate(UNSEEN, n)
            expected += reach
            best = max(best, self._speed(expected, n, cost))
        return best

    def _speed(self, expected: float, length: int, cost: NDArray[np.float64]) -> float:
        return expected / (float(cost[length]) + length * self._costs.drafted_ms)
