"""The target distribution after each node of a scored tree: shaped, constrained, sampled with the position's noise.

One object serves one tree of one sequence. Rows are shaped on first use, so an acceptance rule pays only for the nodes
it visits; plain greedy decoding costs one argmax of the raw row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise, numeric
from unspool.engine.contracts import Constraint, Logits, Shaper, TokenChecker
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError


class _Pick(NamedTuple):
    """The choice after a node: the scores, their tokens (None: the whole vocabulary), and the index of the best."""

    scores: NDArray[Any]
    ids: NDArray[np.int64] | None
    best: int


class ShapedTarget:
    """``Target`` of one scored tree.

    Args:
        tree: the scored tree.
        logits: [nodes, vocabulary] raw logits, one row per node; only read, and only until the session's next pass.
        context_tokens: all committed ids, root included; only read.
        shapers: ordered as by ``unspool.methods.shaping._built_in.build``. The constraint's mask is applied before the
            first shaper with a true ``is_warper``, so truncation counts only allowed tokens.
        options: ``temperature`` (0 is greedy) and ``seed``; temperature is itself one of the shapers.
        constraint: which tokens may follow. A ``TokenChecker`` computes its mask only if the token chosen without it
            is not allowed, or if more than the choice is needed (lazy masking).
        block_max: see ``contracts.Scores``.

    Raises:
        UnspoolError: on use of a node after which no token may follow, or whose logits contain NaN.
    """

    def __init__(
        self,
        tree: TokenTree,
        logits: Logits,
        context_tokens: Sequence[int],
        shapers: Sequence[Shaper],
        options: GenerationOptions,
        constraint: Constraint | None = None,
        block_max: Logits | None = None,
    ) -> None:
        self.tree = tree
        self._logits = logits
        self._context = context_tokens
        self._shapers = shapers
        self._options = options
        self._constraint = constraint
        self._plain = not shapers and constraint is None
        # Block maxima of raw rows: useless if rows are shaped or noise is added.
        self._peaks = block_max if self._plain and options.greedy else None
        # If the token drawn from the whole vocabulary is allowed, the draw from the allowed tokens is the same one:
        # leaving others out changes neither its score nor its lead. Truncation, however, would count the disallowed
        # tokens.
        self._permitting: TokenChecker | None = None
        if constraint is not None and isinstance(constraint, TokenChecker) and self._untruncated():
            self._permitting = constraint
        self._ids: NDArray[np.int64] | None = None
        self._rows: dict[int, Logits] = {}
        self._checked: set[int] = set()
        self._picks: dict[int, _Pick] = {}

    def choose(self, node: int) -> int:
        """The token that plain decoding takes after ``node``: the argmax, or the draw with the position's noise.

        Ties go to the lowest id. Tokens at -inf are never drawn.
        """
        _, ids, best = self._pick(node)
        return best if ids is None else int(ids[best])

    def margin(self, node: int, token: int) -> float:
        """The lead of the emitted ``token`` over all others after ``node``, in the scores that plain decoding compares.

        These are the shaped logits, plus the position's Gumbel noise when sampling. For the token that plain decoding
        takes, the margin is what rounding must exceed to flip the choice: at least 0, inf without a runner-up. If a
        rule emits another token (``lossless`` draws with its own noise), the margin is negative; -inf if the token has
        probability 0. If a constraint was only asked about the choice, the runner-up may be a token that it does not
        allow: the margin is then a lower bound.
        """
        scores, ids, best = self._pick(node)
        at = token if ids is None else int(np.searchsorted(ids, token))
        if at != best:
            known = ids is None or (at < len(ids) and ids[at] == token)
            return float(scores[at]) - float(scores[best]) if known else -np.inf
        second = numeric.runner_up(scores, best, None if self._peaks is None else self._peaks[node])
        return float(scores[best]) - second

    def probabilities(self, node: int) -> NDArray[np.float64]:
        """The distribution that plain decoding draws from after ``node``: float64 [vocabulary], sums to 1, a new array.

        At temperature 0, all probability is on one token.
        """
        if self._options.greedy:
            p = np.zeros(self._logits.shape[1])
            p[self.choose(node)] = 1
            return p
        return numeric.softmax(self._row(node))

    def logprob(self, node: int, token: int) -> float:
        """Log-probability of ``token`` under the softmax of the shaped logits after ``node``, greedy or not."""
        row = self._row(node)
        return float(row[token]) - numeric.log_sum_exp(row)

    def alternatives(self, node: int, k: int) -> tuple[tuple[int, float], ...]:
        """The ``k`` best (id, log-probability) under the softmax of the shaped logits after ``node``.

        Best first, lowest id first among equals; fewer if fewer tokens can follow.
        """
        (ids,), (values,) = numeric.top_k(self._row(node)[None], k)
        total = numeric.log_sum_exp(self._row(node))
        return tuple((int(i), float(v) - total) for i, v in zip(ids, values, strict=True) if v > -np.inf)

    def rank(self, node: int, token: int) -> int:
        """Rank of ``token`` in the order of ``alternatives``; 0 is the best."""
        row = self._row(node)
        return int(np.count_nonzero(row > row[token]) + np.count_nonzero(row[:token] == row[token]))

    def _pick(self, node: int) -> _Pick:
        pick = self._picks.get(node)
        if pick is None:
            pick = self._picks[node] = self._decide(node)
            if np.isnan(pick.scores[pick.best]):
                raise self._not_a_number(node)
        return pick

    def _decide(self, node: int) -> _Pick:
        if self._permitting is not None:
            pick = self._best(node, self._shape(node, None))
            token = pick.best if pick.ids is None else int(pick.ids[pick.best])
            if self._permitting.is_allowed(self.tree.path_tokens(node), token):
                return pick
        return self._best(node, self._row(node))

    def _best(self, node: int, scores: NDArray[Any]) -> _Pick:
        ids = None
        if self._peaks is not None:
            return _Pick(scores, None, numeric.argmax(scores, self._peaks[node]))
        if not self._options.greedy:
            # The sum whose argmax `noise.draw` takes, kept for the margin. Computed in place: for a large vocabulary a
            # new array costs more than the logarithm.
            spread = noise.exponential(self._options.seed, self._position(node), len(scores))
            if scores.min() == -np.inf:
                ids = np.flatnonzero(scores > -np.inf)
                scores, spread = scores[ids], spread[ids]
            scores = np.subtract(scores, np.log(spread, out=spread), out=spread)
        return _Pick(scores, ids, int(np.argmax(scores)))

    def _position(self, node: int) -> int:
        """Absolute position of the token after ``node``."""
        return len(self._context) + int(self.tree.depths[node])

    def _row(self, node: int) -> Logits:
        if self._plain:
            return self._raw(node)
        row = self._rows.get(node)
        if row is None:
            row = self._rows[node] = self._shape(node, self._constraint)
        return row

    def _raw(self, node: int) -> Logits:
        """The model's raw row, checked in full: a NaN outside the competing tokens is as bad as one among them."""
        row: Logits = self._logits[node]
        if node not in self._checked:
            # The sum of squares is NaN only if an entry is: infinities cannot cancel out. One pass, without a copy.
            if np.isnan(np.dot(row, row)):
                raise UnspoolError(f"the logits at position {self._position(node)} contain NaN; try other weights")
            self._checked.add(node)
        return row

    def _untruncated(self) -> bool:
        warpers = [shaper for shaper in self._shapers if getattr(shaper, "is_warper", False)]
        return all(getattr(warper, "is_elementwise", False) for warper in warpers)

    def _shape(self, node: int, constraint: Constraint | None) -> Logits:
        row = self._raw(node)
        path = self.tree.path_tokens(node)
        tokens = self._history(path)
        first = next((i for i, s in enumerate(self._shapers) if getattr(s, "is_warper", False)), len(self._shapers))
        for shaper in self._shapers[:first]:
            row = shaper(tokens, row)
        mask = constraint.allowed(path) if constraint else None
        if mask is not None:
            row = np.where(mask, row, -np.inf)
        peak = row.max()
        # Warpers always keep a token, so only here can none be left.
        if peak == -np.inf:
            who = "the constraint" if mask is not None else "bad_words_ids, no_repeat_ngram_size or other shapers"
            raise UnspoolError(f"no token may follow at position {self._position(node)}; loosen {who}")
        if np.isnan(peak):
            raise self._not_a_number(node)
        if abs(peak) > numeric.RANGE:
            row = numeric.fitted(row.astype(np.float64), self._logits.dtype)
        for shaper in self._shapers[first:]:
            row = shaper(tokens, row)
        return row

    def _not_a_number(self, node: int) -> UnspoolError:
        return UnspoolError(f"a shaper turns the logits at position {self._position(node)} into NaN; fix or remove it")

    def _history(self, path: list[int]) -> NDArray[np.int64]:
        """All ids before the decided position. Only shapers need it, so without them it is empty."""
        if not self._shapers:
            return np.empty(0, dtype=np.int64)
        if self._ids is None:
            self._ids = np.array(self._context, dtype=np.int64)
        return np.concatenate([self._ids, np.array(path, dtype=np.int64)])
