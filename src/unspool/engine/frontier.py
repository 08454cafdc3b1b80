"""What the search methods share: a frontier of branches of one text, read in as few passes as possible.

A method names branches by their output tokens and asks for the distribution after each of them. The frontier decides
which session holds which text, and whether branches share a pass as one tree or use one session each. So methods keep
no caches and can return to any branch at any time: the nearest session is rewound, and the missing tokens are rescored.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unspool.engine.autoregressive import PREFILL_BLOCK, extend
from unspool.engine.contracts import LanguageModel, Logits, Session
from unspool.engine.search import Branch, Distribution, OnEvent, Output, PassEvent
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.engine.turns import turn
from unspool.errors import UnspoolError

MAX_TREE_NODES = 16
"""Branches share one padded pass while their tree is at most this large; beyond it, one session each is cheaper."""


class BudgetSpentError(Exception):
    """The next pass would exceed the search's token budget. Not a user error."""


@dataclass(eq=False)
class _Holder:
    """A session and the tokens in its cache, prompt included."""

    session: Session
    tokens: list[int]

    def rewind(self, length: int) -> None:
        if length < len(self.tokens):
            self.session.rewind(length)
            del self.tokens[length:]


class Frontier:
    """Reads branches after one prompt. Close it when the search is finished.

    Args:
        model: the language model.
        prompt: at least one id.
        sessions: maximum number of sessions kept, one cache of the text each. Reading more branches at once opens more.
        remembered: how many of the newest distributions are kept, so that reading them again is free.
        budget: maximum number of evaluated tokens; a pass beyond it raises ``BudgetSpentError``. None: no limit.
        on_event: receives an event for each pass.

    Attributes:
        evaluated_tokens: tokens evaluated so far, without the prefill (the prompt except its last token).
        passes: calls of the model so far. Branches that share a call count once, whatever the backend does.
        recalled: number of distributions served from memory.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Sequence[int],
        *,
        sessions: int = 1,
        remembered: int = 0,
        budget: int | None = None,
        on_event: OnEvent = lambda event: None,
    ) -> None:
        self.evaluated_tokens = self.passes = self.recalled = 0
        self._model = model
        self._prompt = tuple(prompt)
        self._sessions = sessions
        self._remembered = remembered
        self._known: OrderedDict[Output, Distribution] = OrderedDict()
        self._budget = budget
        self._on_event = on_event
        # Least recently used first.
        self._pool = [_Holder(model.open(), [])]
        with turn(model):
            self._fill(self._pool[0], self._prompt[:-1])

    def close(self) -> None:
        """Free the memory."""
        for holder in self._pool:
            holder.session.close()
        self._pool = []

    @property
    def max_depth(self) -> int:
        """Maximum output length in tokens, given the model's context."""
        return self._model.max_length - len(self._prompt)

    def read(self, outputs: Sequence[Output]) -> list[Distribution]:
        """The distribution after each output. All unknown ones are scored together.

        Raises:
            BudgetSpentError: if that would exceed the budget; raised before the pass.
            UnspoolError: if the logits contain NaN.
        """
        missing = [output for output in dict.fromkeys(outputs) if output not in self._known]
        self.recalled += len(outputs) - len(missing)
        found = {output: self._known[output] for output in outputs if output in self._known}
        if missing:
            start, before = time.perf_counter(), self.evaluated_tokens
            texts = [self._prompt + output for output in missing]
            with turn(self._model):
                for output, logits in zip(missing, self._score(texts), strict=True):
                    if np.isnan(logits.max()):
                        at = len(self._prompt) + len(output)
                        raise UnspoolError(f"the logits at position {at} contain NaN; try other weights")
                    found[output] = Distribution(logits)
            ms = (time.perf_counter() - start) * 1000
            self._on_event(PassEvent(len(missing), self.evaluated_tokens - before, self.evaluated_tokens, ms))
        for output in outputs:
            self._known[output] = found[output]
            self._known.move_to_end(output)
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return [found[output] for output in outputs]

    def _score(self, texts: list[Output]) -> list[Logits]:
        """[vocabulary] after each text, in the sessions' memory, valid until the next pass."""
        joint = self._as_tree(texts) if self._model.widths and len(texts) > 1 else None
        return self._as_sessions(texts) if joint is None else joint

    def _as_tree(self, texts: list[Output]) -> list[Logits] | None:
        """All texts in one pass of one session; None if they do not fit into a small tree."""
        shared = texts[0]
        for text in texts[1:]:
            shared = shared[: _common(shared, text)]
        holder = max(self._pool, key=lambda holder: _common(holder.tokens, shared))
        start = min(_common(holder.tokens, shared), len(shared) - 1)
        builder = TreeBuilder(shared[start])
        ends, levels = [], max(map(len, texts)) - start
        for text in texts:
            if len(text) - start > MAX_TREE_NODES:
                return None
            node = 0
            for token in text[start + 1 :]:
                node = builder.add(node, token, "branch")
            ends.append(node)
        if len(builder) > MAX_TREE_NODES:
            return None
        holder.rewind(start)
        if levels > holder.session.max_depth:
            return None
        self._spend(len(builder))
        rows = sorted(set(ends))
        logits = holder.session.score(builder.build(), rows).logits
        by_node = {node: logits[i] for i, node in enumerate(rows)}
        # The nodes of the shared prefix were added first, as a chain.
        holder.session.commit(range(len(shared) - start))
        holder.tokens += shared[start:]
        self.passes += 1
        return [by_node[node] for node in ends]

    def _as_sessions(self, texts: list[Output]) -> list[Logits]:
        """One session for each text, scored together."""
        holders = self._holders(texts)
        self._spend(sum(len(text) - len(holder.tokens) for text, holder in zip(texts, holders, strict=True)))
        trees = []
        for text, holder in zip(texts, holders, strict=True):
            if len(text) - len(holder.tokens) > min(PREFILL_BLOCK, holder.session.max_depth):
                self.passes += self._fill(holder, text[:-1])
            trees.append(TokenTree.chain(text[len(holder.tokens) :]))
        last = [[len(tree) - 1] for tree in trees]
        scores = self._model.score_many([holder.session for holder in holders], trees, last)
        rows = [score.logits[0] for score in scores]
        for text, holder, tree in zip(texts, holders, trees, strict=True):
            holder.session.commit(range(len(tree)))
            holder.tokens = list(text)
        self.passes += 1
        return rows

    def _holders(self, texts: list[Output]) -> list[_Holder]:
        """A different holder for each text, whose tokens are a proper prefix of it."""
        given: dict[int, _Holder] = {}
        spare = list(self._pool)
        for i, text in enumerate(texts):
            holder = self._nearest(text)
            if holder in spare and len(holder.tokens) == _held(holder, text):
                spare.remove(holder)
                given[i] = holder
        for i, text in enumerate(texts):
            if i in given:
                continue
            nearest = self._nearest(text)
            if len(self._pool) < max(self._sessions, len(texts)):
                holder = _Holder(nearest.session.fork(), list(nearest.tokens))
                self._pool.append(holder)
            else:
                holder = spare.pop(0)
                if holder is not nearest:
                    holder.session.close()
                    holder.session, holder.tokens = nearest.session.fork(), list(nearest.tokens)
            holder.rewind(_held(holder, text))
            given[i] = holder
        used = [given[i] for i in range(len(texts))]
        self._pool = [holder for holder in self._pool if not any(holder is one for one in used)] + used
        return used

    def _nearest(self, text: Output) -> _Holder:
        return max(self._pool, key=lambda holder: (_held(holder, text), -len(holder.tokens)))

    def _spend(self, nodes: int) -> None:
        if self._budget is not None and self.evaluated_tokens + nodes > self._budget:
            raise BudgetSpentError
        self.evaluated_tokens += nodes

    def _fill(self, holder: _Holder, text: Sequence[int]) -> int:
        """Bring a holder to a text; returns the number of passes."""
        passes = extend(holder.session, text[len(holder.tokens) :])
        holder.tokens = list(text)
        return passes


def roll_out(
    frontier: Frontier,
    branches: Sequence[Branch],
    steps: int,
    ended: Callable[[Output], Any],
    seen: Callable[[Output, Distribution], None] = lambda output, distribution: None,
) -> None:
    """Extend each branch greedily by at most ``steps`` tokens; the open ones share each pass.

    A branch for which ``ended`` is true is left unchanged, its log-probability included.

    Args:
        seen: receives each branch that was read and the distribution after it.
    """
    for _ in range(steps):
        open_branches = [
            branch for branch in branches if not ended(branch.output) and len(branch.output) < frontier.max_depth
        ]
        if not open_branches:
            return
        for branch, distribution in zip(
            open_branches, frontier.read([branch.output for branch in open_branches]), strict=True
        ):
            seen(branch.output, distribution)
            branch.extend(distribution.best, distribution.logprob(distribution.best))


def _held(holder: _Holder, text: Output) -> int:
    """How many tokens of ``text`` a holder has; the last one does not count, since it is scored."""
    return min(_common(holder.tokens, text), len(text) - 1)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix, by bisection: comparing slices is far faster than comparing tokens."""
    low, high = 0, min(len(a), len(b))
    a, b = tuple(a[:high]), tuple(b[:high])
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
