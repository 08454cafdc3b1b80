"""One sequence of the autoregressive loop, from its prompt to its last token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.contracts import Closing, Context, Decision, Ending, LanguageModel, Logits, Scores, Session
from unspool.engine.noise import rule_generator
from unspool.engine.prefill import store
from unspool.engine.probe import states_of
from unspool.engine.request import Request
from unspool.engine.target import ShapedTarget
from unspool.engine.trace import Event, FinishReason, PrefillEvent, ProbeEvent, StartEvent, StepEvent
from unspool.engine.tree import TokenTree

MAX_TREE_NODES = 128
"""Maximum node budget of a drafter."""


@dataclass
class _Step:
    """What drafters observe of one pass (``contracts.Step``)."""

    tree: TokenTree
    decision: Decision
    emitted: tuple[int, ...]
    context: Context
    ms: float
    logits: Logits
    _target: ShapedTarget = field(repr=False)
    _peaks: Logits | None = field(default=None, repr=False)
    _top: tuple[NDArray[np.int64], Logits] | None = field(default=None, repr=False)

    def top_k(self, k: int) -> tuple[NDArray[np.int64], Logits]:
        if self._top is None or self._top[0].shape[1] < min(k, self.logits.shape[1]):
            self._top = numeric.top_k(self.logits, k, self._peaks)
        ids, values = self._top
        return ids[:, :k], values[:, :k]

    def alternatives(self, node: int, k: int) -> tuple[tuple[int, float], ...]:
        return self._target.alternatives(node, k)


class Row:
    """State of one sequence, while it waits and while it is decoded.

    Attributes:
        opened: whether decoding has begun.
        ready: whether the prompt is in the cache, so that the row can join a pass.
        waited: passes since the row was last in one, or since it became ready.
        finished: why the text ended; None before.
    """

    def __init__(self, index: int, request: Request) -> None:
        self.index = index
        self.request = request
        self.opened = self.ready = False
        self.tokens = list(request.tokens)
        self.context = Context(
            self.tokens,
            len(request.tokens),
            request.options.seed,
            request.options.temperature,
            request.rule.uses_draft_probs,
        )
        self.steps = 0
        self.waited = 0
        self.finished: FinishReason | None = None
        self._session = request.session
        self._closed = False
        self._prefill_ms = 0.0
        self._asked = True  # whether the drafter proposed the tree of this pass
        self._ending = request.constraint if isinstance(request.constraint, Ending) else None

    @property
    def session(self) -> Session:
        assert self._session is not None, "the row is not open"
        return self._session

    @property
    def remaining(self) -> int:
        return self.request.options.max_new_tokens - (len(self.tokens) - self.context.prompt_length)

    def open(self, model: LanguageModel) -> StartEvent:
        request, options = self.request, self.request.options
        if self._session is None:
            self._session = model.open(request.taps)
        self.opened = True
        return StartEvent(
            self.index, len(request.tokens), request.method, model.settings, options.temperature, options.seed
        )

    def read(self) -> PrefillEvent | None:
        """Put a block of the prompt into the cache; returns the event once all but the last token are in it."""
        start = time.perf_counter()
        prompt = self.request.tokens[:-1]
        if self.session.length < len(prompt):
            store(self.session, prompt[self.session.length :])
        self._prefill_ms += _ms(start)
        if self.session.length < len(prompt):
            return None
        self.request.drafter.start(self.context)
        self.ready = True
        return PrefillEvent(self.index, len(prompt), self._prefill_ms)

    def propose(self, vocab_size: int) -> tuple[TokenTree, float]:
        start = time.perf_counter()
        # Drafts beyond the length limit could never be emitted.
        levels = min(self.remaining, self.session.max_depth)
        forced = self.request.constraint.forced() if self.request.constraint else ()
        self._asked = not forced
        if forced:
            # All forced tokens are right, so no drafter could do better.
            tree = TokenTree.chain((self.tokens[-1], *forced[: MAX_TREE_NODES - 1]), "forced")
        else:
            tree = self.request.drafter.propose(self.context, MAX_TREE_NODES)
        tree = tree.truncated(levels - 1)
        if tree.tokens[0] != self.tokens[-1]:
            raise ValueError(f"{self.request.method}: the root of the tree must be the newest committed token")
        if len(tree) > MAX_TREE_NODES:
            raise ValueError(f"{self.request.method}: {len(tree)} nodes, more than the budget of {MAX_TREE_NODES}")
        if max(tree.tokens) >= vocab_size or min(tree.tokens) < 0:
            raise ValueError(f"{self.request.method}: a drafted token lies outside the vocabulary")
        return tree, _ms(start)

    def accept(self, tree: TokenTree, scores: Scores, draft_ms: float, batch_pass: int) -> list[Event]:
        """Decide, commit and observe; gives the event of the pass, and what probes read."""
        start = time.perf_counter()
        request, options = self.request, self.request.options
        target = ShapedTarget(
            tree, scores.logits, self.tokens, request.shapers, options, request.constraint, scores.block_max
        )
        position = len(self.tokens)
        decision = request.rule.decide(target, partial(rule_generator, options.seed, position))
        candidates = [*(tree.tokens[node] for node in decision.path[1:]), decision.token]
        emitted: list[int] = []
        for token in candidates:
            emitted.append(token)
            self.finished = self._reason(token, len(emitted))
            if self.finished:
                break
        nodes = decision.path[: len(emitted)]
        margins = tuple(target.margin(node, token) for node, token in zip(nodes, emitted, strict=True))
        pause = time.perf_counter()
        logprobs = (
            tuple(target.logprob(node, token) for node, token in zip(nodes, emitted, strict=True))
            if options.logprobs or options.alternatives
            else None
        )
        alternatives = ranks = None
        if options.alternatives:
            alternatives = tuple(target.alternatives(node, options.alternatives) for node in nodes)
            ranks = tuple(target.rank(node, token) for node, token in zip(nodes, emitted, strict=True))
            # What only a trace needs is not timed: the times are those of decoding.
            start += time.perf_counter() - pause
        if (kept := self._advance(emitted)) < len(emitted):
            emitted, nodes, margins = emitted[:kept], nodes[:kept], margins[:kept]
            logprobs, alternatives, ranks = (
                logprobs and logprobs[:kept],
                alternatives and alternatives[:kept],
                ranks and ranks[:kept],
            )
        self.session.commit(nodes)
        self.tokens.extend(emitted)
        accept_ms = _ms(start)
        readings = self._read_probes(scores, nodes, emitted, position)
        start = time.perf_counter()
        if not self.finished and self._asked:
            request.drafter.observe(
                _Step(tree, decision, tuple(emitted), self.context, scores.ms, scores.logits, target, scores.block_max)
            )
        event = StepEvent(
            row=self.index,
            index=self.steps,
            position=position,
            tokens=tree.tokens,
            parents=tree.parents,
            sources=tuple(tree.source_names[source] for source in tree.sources),
            accepted=decision.path,
            emitted=tuple(emitted),
            margins=margins,
            logprobs=logprobs,
            draft_ms=draft_ms,
            score_ms=scores.ms,
            accept_ms=accept_ms,
            observe_ms=_ms(start),
            alternatives=alternatives,
            ranks=ranks,
            batch_pass=batch_pass,
        )
        self.steps += 1
        return [event, *readings]

    def _read_probes(
        self, scores: Scores, nodes: Sequence[int], emitted: Sequence[int], position: int
    ) -> list[ProbeEvent]:
        events = []
        for name, probe in self.request.probes.items():
            assert scores.hidden is not None  # see Request.taps
            states = states_of(scores.hidden, scores.attention, probe.taps, nodes, emitted, position)
            reading = probe.read(states)
            for what, given in (("values", reading.values), ("labels", reading.labels)):
                if len(given) != len(emitted) and (given or what == "values"):
                    raise ValueError(f"probe {name} gives {len(given)} {what} for {len(emitted)} tokens")
            events.append(ProbeEvent(self.index, self.steps, position, name, reading.values, reading.labels))
        return events

    def _advance(self, emitted: Sequence[int]) -> int:
        """Advance the constraint over the tokens of a round; returns how many of them are kept.

        All of them, unless the text is complete and only an end token may follow. The text then ends there, so that a
        drafted end token is not emitted where plain decoding would not emit one.
        """
        constraint = self.request.constraint
        if constraint is None:
            return len(emitted)
        if self._ending is None:
            constraint.advance(emitted)
            return len(emitted)
        for count, token in enumerate(emitted, 1):
            constraint.advance([token])
            if token not in self.request.eos and self._ending.must_end():
                if count < len(emitted) or self.finished in (None, "length"):
                    self.finished = "stop"
                return count
        return len(emitted)

    def close(self) -> None:
        """Close the drafter first: it may still run. Closing twice, as Ctrl-C in here may cause, is not an error."""
        if self._closed:
            return
        self._closed = True
        try:
            if isinstance(self.request.drafter, Closing):
                self.request.drafter.close()
        finally:
            if self._session is not None:
                self._session.close()

    def _reason(self, token: int, count: int) -> FinishReason | None:
        # A stop string takes precedence over the length limit, and end of text over both.
        if token in self.request.eos:
            return "stop"
        if self.request.stopping is not None and (reason := self.request.stopping(token)):
            return reason
        return "length" if count >= self.remaining else None


def _ms(start: float) -> float:
    return (time.perf_counter() - start) * 1000
