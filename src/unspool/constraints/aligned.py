"""``asap`` and ``cars``: samples from the model's own distribution, given that the text fits a grammar.

``asap``: Grammar-Aligned Decoding (2024). ``cars``: Constrained Adaptive Rejection Sampling (2025), by the same group.
Leaving out forbidden tokens step by step favours beginnings that look fine and lead to little that is allowed. The
right weight of a token is its probability times the chance that what follows ends in the language. ``AlignedTrie``
bounds that chance from above for every prefix that was met, and each sample makes the bounds tighter.

``asap`` masks forbidden tokens and weighs the others by their bounds: its first sample is that of masking, later ones
come ever closer; they are not independent. ``cars`` masks only where an earlier sample has been, and at the beginning:
a sample that takes a forbidden token is thrown away, and what it met is remembered. What is accepted are independent
draws from the exact distribution, from the first one on. Guarantee of both: ``valid``.

Both are a shaper of logits, so that every drafter and acceptance rule goes with them. The distribution meant is that of
token sequences no longer than the limit, of the model at the request's temperature. What is learned within a sample is
used from the next one on: a draft may look at a prefix before the text comes there.

Left out: the Markov chain variants of the same authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unspool.constraints.aligned_trie import AlignedTrie
from unspool.constraints.grammar import GrammarOptions
from unspool.engine.contracts import Logits, Permitting
from unspool.engine.numeric import softmax
from unspool.errors import UnspoolError

Sampler = Literal["asap", "cars"]


@dataclass(frozen=True)
class AlignedOptions(GrammarOptions):
    __doc__ = GrammarOptions.__doc__


class AlignedShaper:
    """Weighs the tokens of one sample.

    Args:
        sampler: ``asap`` or ``cars``.
        trie: read while the sample is drawn; ``finish`` adds to it.
        grammar: at the beginning of the text; it is not advanced.
        prompt_length: tokens before the text.
        temperature: of the request, above 0.
    """

    def __init__(
        self, sampler: Sampler, trie: AlignedTrie, grammar: Permitting, prompt_length: int, temperature: float
    ) -> None:
        self._rejecting = sampler == "cars"
        self._trie = trie
        self._grammar = grammar
        self._prompt_length = prompt_length
        self._temperature = temperature
        self._met: dict[tuple[int, ...], tuple[NDArray[np.float64], float]] = {}

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        path = tuple(tokens[self._prompt_length :].tolist())
        legal = self._grammar.allowed(path)
        if legal is None:
            return logits  # behind a forbidden token; nothing of it is kept
        if path not in self._met:
            p = softmax(logits / self._temperature)
            self._met[path] = p, float(p[legal].sum())
        bounds = self._trie.bounds(path)
        if bounds is None and path and self._rejecting:
            return logits
        weighed = np.where(legal, logits, -np.inf)
        for token, bound in (bounds or {}).items():
            # Times the temperature, because the warper behind divides by it.
            weighed[token] += self._temperature * np.log(bound) if bound > 0 else -np.inf
        if weighed.max() > -np.inf:
            return weighed
        if not path:
            raise UnspoolError("the model gives no probability to any text of this grammar; change prompt or grammar")
        return logits  # a dead end: the sample is lost, and remembered as such

    def permits(self, text: Sequence[int]) -> bool:
        """Whether the last token of ``text`` may follow the others, all of which may."""
        return self._grammar.permits(text[:-1], text[-1])

    def finish(self) -> None:
        """The sample is over, whatever came of it: remember what it met."""
        for path in sorted(self._met, key=len):
            if not path:
                self._trie.add(path, 1.0, self._met[path][1])
            elif path[:-1] in self._met:
                self._trie.add(path, float(self._met[path[:-1]][0][path[-1]]), self._met[path][1])
        self._met.clear()
