"""``asap`` and ``cars``: samples from the model's own distribution, conditioned on a grammar.

``asap``: Grammar-Aligned Decoding (2024). ``cars``: Constrained Adaptive Rejection Sampling (2025), by the same group.
Masking forbidden tokens step by step favours beginnings that look fine but lead to little that is allowed. The correct
weight of a token is its probability times the probability that the rest ends in the language. ``AlignedTrie`` bounds
the latter from above for every prefix seen so far, and each sample makes the bounds tighter.

``asap`` masks forbidden tokens and weights the others by their bounds. Its first sample is that of masking, later ones
come closer and closer; they are not independent. ``cars`` masks only where an earlier sample has been, and at the
beginning. It rejects a sample that takes a forbidden token, and remembers what that sample saw. Accepted samples are
independent draws from the exact distribution, from the first one on. Guarantee of both: ``valid``.

Both are a shaper of logits, so they work with every drafter and acceptance rule. The distribution is that of token
sequences no longer than the limit, of the model at the request's temperature. What is learned within a sample is used
from the next one on, because a draft may query a prefix before the text gets there.

Left out: the Markov chain variants of the same authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits, TokenChecker
from unspool.engine.method import Case
from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar import GrammarOptions
from unspool.methods.sampling._trie import AlignedTrie

Sampler = Literal["asap", "cars"]


_REGEX = r"(ab|x=)(co|a|in)*(1|,a){0,3}\n?"
CASE = Case({"regex": _REGEX}, complete=lambda output: re.fullmatch(_REGEX, output) is not None)

_OPEN = 8
"""Distributions that are kept, each of 8 bytes per token of the vocabulary."""


@dataclass
class _Met:
    """What one sample saw of a prefix, see ``AlignedTrie.add``."""

    chance: float
    rest: float


@dataclass(frozen=True)
class AlignedOptions(GrammarOptions):
    __doc__ = GrammarOptions.__doc__


class AlignedShaper:
    """Weights the tokens of one sample.

    Args:
        sampler: ``asap`` or ``cars``.
        trie: read while the sample is drawn; ``finish`` adds to it.
        grammar: at the beginning of the text; it is not advanced.
        prompt_length: number of tokens before the text.
        temperature: of the request, above 0.
    """

    def __init__(
        self, sampler: Sampler, trie: AlignedTrie, grammar: TokenChecker, prompt_length: int, temperature: float
    ) -> None:
        self._rejecting = sampler == "cars"
        self._trie = trie
        self._grammar = grammar
        self._prompt_length = prompt_length
        self._temperature = temperature
        self._met: dict[tuple[int, ...], _Met] = {}
        self._open: dict[tuple[int, ...], NDArray[np.float64]] = {}  # the newest prefixes: what may follow each

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        path = tuple(tokens[self._prompt_length :].tolist())
        legal = self._grammar.allowed(path)
        if legal is None:
            return logits  # after a forbidden token; nothing of it is kept
        bounds = self._trie.bounds(path)
        if path not in self._met:
            self._meet(path, logits, legal, bounds)
        if bounds is None and path and self._rejecting:
            return logits
        weighed = np.where(legal, logits, -np.inf).astype(np.float64)
        for token, bound in (bounds or {}).items():
            # Times the temperature, because the temperature warper runs later and divides by it.
            weighed[token] += self._temperature * bound
        if weighed.max() > -np.inf:
            return weighed
        if not path:
            raise UnspoolError("the model gives every text of this grammar probability 0; change prompt or grammar")
        return logits  # a dead end: the sample is lost, and remembered as such

    def _meet(
        self, path: tuple[int, ...], logits: Logits, legal: NDArray[np.bool_], bounds: Mapping[int, float] | None
    ) -> None:
        """Record a prefix, and that its last token followed the prefix before it.

        The mass that was not followed is summed again without that token: subtraction would lose it where nearly all of
        the mass was followed. Only the newest of the distributions needed for this are kept; a prefix whose parent is
        not among them is not remembered, which leaves the bounds above the truth.
        """
        chance = 0.0
        if path and bounds is None:
            before = self._open.get(path[:-1])
            if before is None:
                return
            chance = float(before[path[-1]])
            before[path[-1]] = -np.inf
            self._met[path[:-1]].rest = _total(before)
        scaled = np.asarray(logits, np.float64) / self._temperature
        follows = np.where(legal, scaled - _total(scaled), -np.inf)
        follows[list(bounds or ())] = -np.inf
        self._met[path] = _Met(chance, _total(follows))
        self._open[path] = follows
        if len(self._open) > _OPEN:
            del self._open[next(iter(self._open))]

    def is_allowed(self, text: Sequence[int]) -> bool:
        """Whether the last token of ``text`` may follow the others, all of which may."""
        return self._grammar.is_allowed(text[:-1], text[-1])

    def finish(self) -> None:
        """Remember what the sample saw; to be called at its end, whatever the outcome."""
        for path in sorted(self._met, key=len):
            self._trie.add(path, self._met[path].chance, self._met[path].rest)
        self._trie.warm_up(self._met)
        self._met.clear()
        self._open.clear()


def _total(masses: NDArray[np.float64]) -> float:
    """The logarithm of a sum of numbers that are given as logarithms."""
    top = float(masses.max())
    return top if top == -np.inf else top + float(np.log(np.exp(masses - top).sum()))
