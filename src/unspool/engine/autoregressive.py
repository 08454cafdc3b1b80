"""The autoregressive loop: propose a tree, score it in one pass, accept a path, commit it, let the drafter observe.

Plain decoding is this loop with an empty draft, and a batch is several rows of it whose trees are scored together; a
batch plan says which. Methods fill its slots (drafter, acceptance rule, shapers, constraint, batch plan); none has a
loop of its own.

Threads take turns on a model, a round each (``turns``); between rounds, where events are handed out, nobody has the
turn, so streams of one thread can be read by turns, abandoned, or closed by any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.batch import AllRows, BatchPlan, OpenRow
from unspool.engine.contracts import (
    AcceptanceRule,
    Closing,
    Constraint,
    Context,
    Decision,
    Drafter,
    Ending,
    LanguageModel,
    Logits,
    Scores,
    Session,
    Shaper,
)
from unspool.engine.noise import rule_generator
from unspool.engine.options import GenerationOptions
from unspool.engine.target import ShapedTarget
from unspool.engine.trace import EndEvent, Event, FinishReason, PrefillEvent, StartEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.errors import UnspoolError

PREFILL_BLOCK = 128
"""Prompt tokens per pass: large enough to keep the processor busy, small enough to bound the memory of a pass."""

MAX_TREE_NODES = 128
"""Upper bound of the budget that drafters are given."""


@dataclass(frozen=True)
class Request:
    """One sequence to decode.

    Attributes:
        tokens: ids of the prompt, at least one.
        drafter: proposes the trees; must not be shared by the rows of a batch (its memory may be).
        rule: acceptance rule.
        options: of the request; ``options.shapers`` is replaced by ``shapers``.
        shapers: the whole pipeline in order, as ``unspool.methods.shaping._built_in.build`` makes it.
        eos: ids that end the text; the ending id is part of the output, where one was asked for.
        method: name for the trace.
        constraint: advanced along the output. Tokens that it forces are drafted in place of the drafter's, which is
            then neither asked for a tree nor shown the pass. One that is ``Ending`` ends the text without an end token.
        stopping: called with each emitted token; a reason ends the text after that token.
        session: where decoding begins: a session of the model that already holds the first tokens of the prompt, not
            all of them. The row works on it and closes it. None: a new one.
        assistants: models besides the target that the drafter may run.
    """

    tokens: Sequence[int]
    drafter: Drafter
    rule: AcceptanceRule
    options: GenerationOptions
    shapers: Sequence[Shaper] = ()
    eos: frozenset[int] = frozenset()
    method: str = "plain"
    constraint: Constraint | None = None
    stopping: Callable[[int], FinishReason | None] | None = None
    session: Session | None = None
    assistants: Sequence[LanguageModel] = ()


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


class _Row:
    """State of one sequence while it is decoded."""

    def __init__(self, index: int, request: Request, session: Session) -> None:
        self.index = index
        self.request = request
        self.session = session
        self.tokens = list(request.tokens)
        self.context = Context(
            self.tokens,
            len(request.tokens),
            request.options.seed,
            request.options.temperature,
            request.rule.tests_draws,
        )
        self.steps = 0
        self.waited = 0
        self._asked = True  # whether the drafter proposed the tree of this pass
        self.finished: FinishReason | None = None
        self._ending = request.constraint if isinstance(request.constraint, Ending) else None

    @property
    def remaining(self) -> int:
        return self.request.options.max_new_tokens - (len(self.tokens) - self.context.prompt_length)

    def propose(self, vocab_size: int) -> tuple[TokenTree, float]:
        start = time.perf_counter()
        # Drafts beyond the length limit could never be emitted, so they are not paid for.
        levels = min(self.remaining, self.session.room)
        forced = self.request.constraint.forced() if self.request.constraint else ()
        self._asked = not forced
        if forced:
            # All of them are right, so that no drafter could do better.
            tree = TokenTree.chain((self.tokens[-1], *forced[: MAX_TREE_NODES - 1]), "forced")
        else:
            tree = self.request.drafter.propose(self.context, MAX_TREE_NODES)
        tree = tree.truncated(levels - 1)
        if tree.tokens[0] != self.tokens[-1]:
            raise ValueError(f"{self.request.method}: the root of the tree is not the newest committed token")
        if len(tree) > MAX_TREE_NODES:
            raise ValueError(f"{self.request.method}: {len(tree)} nodes, more than the budget of {MAX_TREE_NODES}")
        if max(tree.tokens) >= vocab_size or min(tree.tokens) < 0:
            raise ValueError(f"{self.request.method}: a drafted token lies outside the vocabulary")
        return tree, _ms(start)

    def accept(self, tree: TokenTree, scores: Scores, draft_ms: float, batch_pass: int) -> StepEvent:
        start = time.perf_counter()
        request, options = self.request, self.request.options
        target = ShapedTarget(
            tree, scores.logits, self.tokens, request.shapers, options, request.constraint, scores.peaks
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
            # What a trace asks for is in none of the times, which are to tell what decoding costs.
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
        start = time.perf_counter()
        if not self.finished and self._asked:
            request.drafter.observe(
                _Step(tree, decision, tuple(emitted), self.context, scores.ms, scores.logits, target, scores.peaks)
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
        return event

    def _advance(self, emitted: Sequence[int]) -> int:
        """Move the constraint over the tokens of a round; gives how many of them stay.

        All of them, but where a text is complete and nothing but an end token may follow: it ends there, so that an end
        token that was drafted is not emitted where plain decoding asks for none.
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
        """The drafter first: it may still be at work."""
        if isinstance(self.request.drafter, Closing):
            self.request.drafter.close()
        self.session.close()

    def _reason(self, token: int, count: int) -> FinishReason | None:
        # A stop string ends the text before the limit does, and end of text before both.
        if token in self.request.eos:
            return "stop"
        if self.request.stopping is not None and (reason := self.request.stopping(token)):
            return reason
        return "length" if count >= self.remaining else None


def check(model: LanguageModel, request: Request) -> None:
    """Refuse a request that cannot be served, before any work.

    Raises:
        UnspoolError: empty prompt, ids outside the vocabulary, a text longer than the context, or a session that holds
            more than the prompt.
    """
    prompt, limit = len(request.tokens), model.max_length
    if not prompt:
        raise UnspoolError("the prompt is empty; give at least one token")
    if max(request.tokens) >= model.vocab_size or min(request.tokens) < 0:
        raise UnspoolError(
            f"the prompt holds a token id outside the model's vocabulary of {model.vocab_size}; "
            "use the tokenizer that belongs to the model"
        )
    if prompt >= limit:
        raise UnspoolError(f"the prompt has {prompt} tokens, the model's context {limit}; shorten the prompt")
    if prompt + request.options.max_new_tokens > limit:
        raise UnspoolError(
            f"prompt ({prompt}) and max_new_tokens ({request.options.max_new_tokens}) exceed the model's context of "
            f"{limit} tokens; set max_new_tokens to at most {limit - prompt}"
        )
    if request.session is not None and request.session.length >= prompt:
        raise UnspoolError(
            f"the session holds {request.session.length} tokens, the prompt has {prompt}; rewind it to at most "
            f"{prompt - 1}, because the last token of the prompt is scored anew"
        )


def decode(model: LanguageModel, requests: Sequence[Request], plan: BatchPlan | None = None) -> Iterator[Event]:
    """Decode the requests together and yield trace events as they happen.

    Closing the generator early (``break``, Ctrl-C) closes the sessions.

    Args:
        plan: which rows share a pass; by default all of them.

    Raises:
        UnspoolError: if a request cannot be served; raised before any work on any of them.
    """
    for request in requests:
        check(model, request)
    return _told(_decode(model, requests, plan or AllRows()), requests)


def _told(events: Generator[Event, None, None], requests: Sequence[Request]) -> Iterator[Event]:
    with closing(events):
        for event in events:
            if tell := requests[event.row].options.on_event:
                tell(event)
            yield event


def _decode(model: LanguageModel, requests: Sequence[Request], plan: BatchPlan) -> Generator[Event, None, None]:
    order = range(len(requests))
    waiting = deque(sorted(order, key=lambda index: len(requests[index].tokens)) if plan.shortest_first else order)
    active: dict[int, _Row] = {}  # by index, in the order in which they were opened
    models = (model, *(assistant for request in requests for assistant in request.assistants))
    passes = 0
    try:
        while waiting or active:
            while waiting and (plan.window is None or len(active) < plan.window):
                index = waiting.popleft()
                request = requests[index]
                options = request.options
                row = active[index] = _Row(index, request, model.open() if request.session is None else request.session)
                yield StartEvent(
                    index, len(request.tokens), request.method, model.settings, options.temperature, options.seed
                )
                with turn(*models):
                    prefill = _prefill(row)
                    request.drafter.start(row.context)
                yield prefill
            with turn(*models):
                events = _round(model, plan, active, passes)
            yield from events
            passes += 1
    finally:
        for row in active.values():
            row.close()


def _round(model: LanguageModel, plan: BatchPlan, active: dict[int, _Row], number: int) -> list[Event]:
    """One pass over the rows that the plan chooses. Rows that end leave ``active``; all do if anything fails."""
    events: list[Event] = []
    try:
        rows = _chosen(plan, active)
        proposals = [row.propose(model.vocab_size) for row in rows]
        trees = [tree for tree, _ in proposals]
        scores = model.score_many([row.session for row in rows], trees)
        for row, (tree, draft_ms), score in zip(rows, proposals, scores, strict=True):
            events.append(row.accept(tree, score, draft_ms, number))
            if row.finished:
                row.close()
                del active[row.index]
                events.append(EndEvent(row.index, row.finished))
    except BaseException:
        # A drafter may be at work in the background on a model that somebody else has the turn on next.
        while active:
            active.popitem()[1].close()
        raise
    return events


def _chosen(plan: BatchPlan, active: dict[int, _Row]) -> list[_Row]:
    """The rows of the next pass. All others have waited for one pass more."""
    chosen = plan.choose([OpenRow(row.index, len(row.tokens), row.waited) for row in active.values()])
    if not chosen or len(set(chosen)) < len(chosen) or not active.keys() >= set(chosen):
        raise ValueError(f"a batch plan chooses open rows, at least one and none twice, not {list(chosen)}")
    for row in active.values():
        row.waited = 0 if row.index in chosen else row.waited + 1
    return [active[index] for index in chosen]


def _prefill(row: _Row) -> PrefillEvent:
    """Everything but the last token of the prompt goes into the cache; no logits are asked for."""
    start = time.perf_counter()
    prompt = row.request.tokens[:-1]
    extend(row.session, prompt[row.session.length :])
    return PrefillEvent(row.index, len(prompt), _ms(start))


def extend(session: Session, tokens: Sequence[int]) -> int:
    """Put more tokens into the cache, as a prefill does; gives the number of passes that it took."""
    at = passes = 0
    while at < len(tokens):
        block = tokens[at : at + min(PREFILL_BLOCK, session.room)]
        session.score(TokenTree.chain(block), rows=())
        session.commit(range(len(block)))
        at += len(block)
        passes += 1
    return passes


def _ms(start: float) -> float:
    return (time.perf_counter() - start) * 1000
