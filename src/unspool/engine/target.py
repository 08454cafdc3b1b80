"""The target distribution after each node of a scored tree: shaped, constrained, and sampled with the position's noise.

One object serves one tree of one sequence. Rows are shaped when first asked for, so an acceptance rule pays only for
the nodes it visits; plain greedy decoding costs one argmax of the raw row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise, numeric
from unspool.engine.contracts import Constraint, Logits, Permitting, Shaper
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError


class _Pick(NamedTuple):
    """What a token was chosen from: scores, the tokens they belong to (None: all of them), the index of the best."""

    scores: NDArray[Any]
    ids: NDArray[np.int64] | None
    best: int


class ShapedTarget:
    """``Target`` of one scored tree.

    Args:
        tree: the scored tree.
        logits: [nodes, vocabulary] raw logits, one row per node; read only, and only until the session's next pass.
        context_tokens: all committed ids, the root included; read only.
        shapers: in the order of ``unspool.methods.shaping._built_in.build``. A constraint acts before the first one
            whose ``is_warper`` is true, so that truncation counts only what the constraint allows.
        options: ``temperature`` (0 is greedy) and ``seed``; temperature itself is one of the shapers.
        constraint: which tokens may follow. One that is ``Permitting`` is asked for its mask only where the token that
            would be chosen without it is not allowed, or where more than the choice is asked for.
        peaks: see ``contracts.Scores``.

    Raises:
        UnspoolError: when a node is asked for after which no token may follow, or whose logits are not numbers.
    """

    def __init__(
        self,
        tree: TokenTree,
        logits: Logits,
        context_tokens: Sequence[int],
        shapers: Sequence[Shaper],
        options: GenerationOptions,
        constraint: Constraint | None = None,
        peaks: Logits | None = None,
    ) -> None:
        self.tree = tree
        self._logits = logits
        self._context = context_tokens
        self._shapers = shapers
        self._options = options
        self._constraint = constraint
        self._plain = not shapers and constraint is None
        # Of raw rows: of no use where rows are shaped, or noise is added.
        self._peaks = peaks if self._plain and options.greedy else None
        # Drawn from all tokens with the position's noise, a token that is allowed is the one that would be drawn from
        # the allowed ones: leaving others out changes neither its score nor its lead. Truncation would count them.
        self._permitting: Permitting | None = None
        if constraint is not None and isinstance(constraint, Permitting) and self._untruncated():
            self._permitting = constraint
        self._ids: NDArray[np.int64] | None = None
        self._rows: dict[int, Logits] = {}
        self._checked: set[int] = set()
        self._picks: dict[int, _Pick] = {}

    def choose(self, node: int) -> int:
        """The token that plain decoding takes after ``node``: the argmax, or the draw with the position's own noise.

        Equal scores go to the lowest id. Tokens at -inf are never drawn.
        """
        _, ids, best = self._pick(node)
        return best if ids is None else int(ids[best])

    def margin(self, node: int, token: int) -> float:
        """How far the emitted ``token`` is ahead of all others after ``node``, in the scores plain decoding chooses by.

        Those are the shaped logits, in sampling with the Gumbel noise of the position. For the token that plain
        decoding takes: what rounding must exceed to flip the choice, at least 0, inf without a runner-up. Where a rule
        emits another token (``lossless`` draws with noise of its own), that is behind the one plain decoding takes: the
        margin is negative, -inf where the token has no probability. Where a constraint was asked about the choice
        alone, the runner-up may be a token that it does not allow: the margin is then a lower bound.
        """
        scores, ids, best = self._pick(node)
        at = token if ids is None else int(np.searchsorted(ids, token))
        if at != best:
            known = ids is None or (at < len(ids) and ids[at] == token)
            return float(scores[at]) - float(scores[best]) if known else -np.inf
        second = numeric.runner_up(scores, best, None if self._peaks is None else self._peaks[node])
        return float(scores[best]) - second

    def probabilities(self, node: int) -> NDArray[np.float64]:
        """What plain decoding draws the token after ``node`` from: float64 [vocabulary], sums to 1, a new array.

        At temperature 0 that is all on one token.
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

        Best first, lowest id first among equals; fewer where fewer tokens can follow.
        """
        (ids,), (values,) = numeric.top_k(self._row(node)[None], k)
        total = numeric.log_sum_exp(self._row(node))
        return tuple((int(i), float(v) - total) for i, v in zip(ids, values, strict=True) if v > -np.inf)

    def rank(self, node: int, token: int) -> int:
        """How many tokens come before ``token`` in the order of ``alternatives``, 0 for the best."""
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
            if self._permitting.permits(self.tree.path_tokens(node), token):
                return pick
        return self._best(node, self._row(node))

    def _best(self, node: int, scores: NDArray[Any]) -> _Pick:
        ids = None
        if self._peaks is not None:
            return _Pick(scores, None, numeric.argmax(scores, self._peaks[node]))
        if not self._options.greedy:
            # The sum that `noise.draw` takes the argmax of, kept for the margin. In place: for a large vocabulary a
            # fresh array costs more than the logarithm.
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
        """The model's own row, looked at in full: a NaN beside the tokens that compete is as bad as one among them."""
        row: Logits = self._logits[node]
        if node not in self._checked:
            # Squares sum up to NaN only if one of them is: no two infinities cancel out. One pass, without a copy.
            if np.isnan(np.dot(row, row)):
                raise UnspoolError(f"the logits at position {self._position(node)} hold NaN; try other weights")
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
        # Warpers always leave a token, so this is the place where none can be left.
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
        return UnspoolError(f"a shaper makes NaN of the logits at position {self._position(node)}; mend or remove it")

    def _history(self, path: list[int]) -> NDArray[np.int64]:
        """All ids before the position that is decided; only shapers need it, so it is built only for them."""
        if not self._shapers:
            return np.empty(0, dtype=np.int64)
        if self._ids is None:
            self._ids = np.array(self._context, dtype=np.int64)
        return np.concatenate([self._ids, np.array(path, dtype=np.int64)])
