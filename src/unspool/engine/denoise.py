"""The denoise loop: score the canvas, choose positions, unmask. Methods fill its parts and never copy it.

Each row is a generator that asks for passes; a batch answers the rows together, so a row decodes as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise
from unspool.engine.canvas import (
    BlockSchedule,
    CanvasConstraint,
    CanvasScores,
    Denoiser,
    Fed,
    ScoreTransform,
    Sight,
    StopRule,
    UnmaskPolicy,
    View,
)
from unspool.engine.trace import CanvasEvent, EndEvent, Event, StartEvent
from unspool.errors import UnspoolError

Cache = Literal["none", "prefix", "dual"]

_Passes = Generator[Fed, CanvasScores, None]


@dataclass(frozen=True)
class Parts:
    """What fills the loop for one canvas. Parts keep state, so each canvas has its own.

    Attributes:
        policy: which masks are replaced.
        schedule: where blocks end.
        transforms: applied to the logits of a block in this order.
        stop: when the rest is filled at once; None: never.
        constraint: what may be committed; None: anything. A token that it refuses is not looked at again in its slot,
            which waits for the next pass; if a pass would commit nothing, the likeliest token that is allowed is
            committed. Behind an end token everything is filled with it.
    """

    policy: UnmaskPolicy
    schedule: BlockSchedule
    transforms: Sequence[ScoreTransform] = ()
    stop: StopRule | None = None
    constraint: CanvasConstraint | None = None


@dataclass(frozen=True)
class CanvasOptions:
    """How a canvas is decoded, whatever the parts.

    Attributes:
        temperature: 0 takes the likeliest token; above 0 Gumbel noise of (seed, position, step), times the temperature,
            is added to the logits that the token is chosen by. Confidence is measured without it.
        seed: of the noise, and of policies that draw.
        cache: ``none`` feeds the whole canvas in every pass. ``prefix`` and ``dual`` are Fast-dLLM's: from a block's
            second pass on, only the block and what follows it, or only the block, is fed; keys and values of the rest
            are as old as the block's first pass, so the text may differ.
        stop_at_eos: whether a finished block that holds the end token ends the text; the rest is filled with it.
    """

    temperature: float = 0.0
    seed: int = 0
    cache: Cache = "none"
    stop_at_eos: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UnspoolError(f"temperature must be 0 or above, not {self.temperature}")
        if self.cache not in ("none", "prefix", "dual"):
            raise UnspoolError(f"cache must be none, prefix or dual, not {self.cache!r}")


@dataclass(frozen=True)
class CanvasRequest:
    """One canvas.

    Attributes:
        prompt: token ids before the slots.
        slots: token id of each slot, None for a mask; at least one. Tokens that are given are never changed.
        parts: of this canvas alone.
        options: see ``CanvasOptions``.
        name: of the method, for the trace.
    """

    prompt: Sequence[int]
    slots: Sequence[int | None]
    parts: Parts
    options: CanvasOptions = field(default_factory=CanvasOptions)
    name: str = ""


def check(model: Denoiser, request: CanvasRequest) -> None:
    """Raise an ``UnspoolError`` if the request cannot be decoded, before any work."""
    length = len(request.prompt) + len(request.slots)
    if not request.slots:
        raise UnspoolError("the canvas has no slots; ask for at least one token")
    if length > model.max_length:
        raise UnspoolError(
            f"a prompt of {len(request.prompt)} tokens and {len(request.slots)} slots do not fit into the model's "
            f"{model.max_length} positions; shorten the prompt or the canvas"
        )
    given = [*request.prompt, *(token for token in request.slots if token is not None)]
    for token in given:
        if not 0 <= token < model.vocab_size:
            raise UnspoolError(f"token id {token} lies outside the model's vocabulary of {model.vocab_size}")
        if token == model.mask_id:
            raise UnspoolError(f"token id {token} is the mask; write None for a slot that is to be filled")
    if request.options.stop_at_eos and model.eos_token_id is None:
        raise UnspoolError("stop_at_eos needs a model with an end token; leave it out")
    request.parts.schedule.check(len(request.slots))
    if request.parts.stop is not None:
        request.parts.stop.check(len(request.slots))
    if request.parts.constraint is not None:
        request.parts.constraint.check(request.slots)


def denoise(
    model: Denoiser, requests: Sequence[CanvasRequest], on_event: Callable[[Event], None] = lambda event: None
) -> list[list[int]]:
    """Fill canvases in one batch.

    Returns:
        The tokens of the slots of each request; behind an end token they are the canvas's filling.

    Raises:
        UnspoolError: see ``check``; nothing has been scored then.
    """
    for request in requests:
        check(model, request)
    rows = [_Row(model, request, index, on_event) for index, request in enumerate(requests)]
    sessions = [model.open() for _ in rows]
    try:
        active = [(row, row.passes(), session) for row, session in zip(rows, sessions, strict=True)]
        waiting = [(row, passes, session, fed) for row, passes, session in active if (fed := next(passes, None))]
        while waiting:
            scores = model.score_many([session for *_, session, _ in waiting], [fed for *_, fed in waiting])
            waiting = [
                (row, passes, session, after)
                for (row, passes, session, _), answer in zip(waiting, scores, strict=True)
                if (after := _send(passes, answer)) is not None
            ]
    finally:
        for session in sessions:
            session.close()
    return [row.slots() for row in rows]


def _send(passes: _Passes, scores: CanvasScores) -> Fed | None:
    try:
        return passes.send(scores)
    except StopIteration:
        return None


class _Row:
    """One canvas on its way."""

    def __init__(self, model: Denoiser, request: CanvasRequest, index: int, emit: Callable[[Event], None]) -> None:
        self._model = model
        self._request = request
        self._index = index
        self._emit = emit
        filled = [model.mask_id if token is None else token for token in request.slots]
        self._tokens = np.array([*request.prompt, *filled], dtype=np.int64)
        self._first = len(request.prompt)
        self._masked = self._tokens == model.mask_id
        self._masked[: self._first] = False
        self._step = 0
        self._block = 0
        self._refused: dict[int, list[int]] = {}  # by position, tokens that the constraint does not allow

    def slots(self) -> list[int]:
        tokens: list[int] = self._tokens[self._first :].tolist()
        return tokens

    def passes(self) -> _Passes:
        """Ask for pass after pass until no mask is left."""
        options, length = self._request.options, len(self._tokens)
        settings = self._model.settings
        self._emit(
            StartEvent(self._index, self._first, self._request.name, settings, options.temperature, options.seed)
        )
        start = self._first
        while self._masked.any():
            start += int(np.argmax(self._masked[start:]))  # given slots before the first mask belong to no block
            # Every block begins with a pass over the whole canvas, which refreshes what is cached.
            sight = self._sight((yield Fed(self._tokens, 0, length)))
            if self._stops(sight):
                break
            stop = min(length, start + max(1, self._request.parts.schedule.next_block(start, sight)))
            self._enter(start, stop, sight)
            while True:
                self._commit(*self._chosen(start, stop, sight))
                if not self._masked[start:stop].any():
                    break
                sight = self._sight((yield Fed(self._tokens, *self._span(start, stop))))
                if self._stops(sight):
                    break
            eos = self._model.eos_token_id
            if options.stop_at_eos and eos is not None and eos in self._tokens[start:stop]:
                self._tokens[self._masked] = eos
                self._masked[:] = False
            start = stop
            self._block += 1
        self._emit(EndEvent(self._index, "stop" if self._model.eos_token_id in self.slots() else "length"))

    def _span(self, start: int, stop: int) -> tuple[int, int]:
        cache = self._request.options.cache
        return (0 if cache == "none" else start), (stop if cache == "dual" else len(self._tokens))

    def _sight(self, scores: CanvasScores) -> Sight:
        self._step += 1
        return Sight(self._tokens, self._masked, self._first, scores, self._step - 1)

    def _view(self, start: int, stop: int, sight: Sight, logits: NDArray[np.float64]) -> View:
        options = self._request.options
        scores = logits
        if options.temperature > 0:
            drawn = [noise.canvas_gumbel(options.seed, p, sight.step, logits.shape[1]) for p in range(start, stop)]
            scores = logits + options.temperature * np.array(drawn)
        return View(sight, start, self._masked[start:stop].copy(), logits, scores.argmax(axis=1), options.seed)

    def _raw(self, start: int, stop: int, sight: Sight) -> NDArray[np.float64]:
        rows = sight.logits(start, stop)
        assert rows is not None  # every pass feeds the active block
        logits = rows.astype(np.float64)
        logits[:, self._model.mask_id] = -np.inf
        for position, tokens in self._refused.items():
            if start <= position < stop:
                logits[position - start, tokens] = -np.inf
        return logits

    def _enter(self, start: int, stop: int, sight: Sight) -> None:
        view = self._view(start, stop, sight, self._raw(start, stop, sight))
        for transform in self._request.parts.transforms:
            transform.enter(view)
        self._request.parts.policy.enter(view)

    def _chosen(self, start: int, stop: int, sight: Sight) -> tuple[View, NDArray[np.int64]]:
        view = self._view(start, stop, sight, self._raw(start, stop, sight))
        for transform in self._request.parts.transforms:
            view = self._view(start, stop, sight, transform(view))
        chosen = np.flatnonzero(self._request.parts.policy.select(view) & view.masked)
        if not len(chosen):
            chosen = np.array([np.argmax(np.where(view.masked, view.confidence, -1.0))])
        return view, chosen

    def _commit(self, view: View, slots: NDArray[np.int64]) -> None:
        committed: dict[int, float] = {}
        for slot in slots[np.argsort(-view.confidence[slots], kind="stable")].tolist():
            self._place(view.start + slot, int(view.tokens[slot]), float(view.confidence[slot]), committed)
        left = np.where(view.masked[:, None], view.probabilities, -1.0)
        for position, tokens in self._refused.items():
            if 0 <= position - view.start < len(left):
                left[position - view.start, tokens] = -1.0
        while not committed:  # only a constraint refuses anything
            slot, token = np.unravel_index(int(left.argmax()), left.shape)
            if left[slot, token] < 0:
                raise UnspoolError("the constraint allows no token in any slot, though it allowed the canvas before")
            self._place(view.start + int(slot), int(token), float(left[slot, token]), committed)
            left[slot, token] = -1.0
        self._tell(committed, view.sight)

    def _place(self, position: int, token: int, confidence: float, committed: dict[int, float]) -> None:
        """Commit a token unless the constraint refuses it, and what follows from it."""
        constraint = self._request.parts.constraint
        if not self._masked[position]:  # an end token before it has filled it
            return
        if constraint is not None and not constraint.allows(self._open(), position - self._first, token):
            self._refused.setdefault(position, []).append(token)
            return
        self._tokens[position] = token
        self._masked[position] = False
        committed[position] = confidence
        if constraint is not None and token == self._model.eos_token_id:
            behind = position + np.flatnonzero(self._masked[position:])
            self._tokens[behind] = token
            self._masked[behind] = False
            committed |= dict.fromkeys(behind.tolist(), 1.0)

    def _open(self) -> list[int | None]:
        """The slots, None where they hold a mask."""
        slots = zip(self._tokens[self._first :].tolist(), self._masked[self._first :].tolist(), strict=True)
        return [None if masked else token for token, masked in slots]

    def _stops(self, sight: Sight) -> bool:
        """Fill all masks with the likeliest tokens that are allowed if the stop rule says so."""
        rule = self._request.parts.stop
        left = np.flatnonzero(self._masked)
        first, end = int(left[0]), int(left[-1]) + 1
        # A pass that fed only a part knows nothing new about the rest, so it cannot fill it.
        if rule is None or sight.logits(first, end) is None or not rule.stop(sight):
            return False
        rows = self._raw(first, end, sight)[left - first]
        chances = np.exp(rows - rows.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        committed: dict[int, float] = {}
        for i in np.argsort(-chances.max(axis=1), kind="stable"):
            for token in np.argsort(-rows[i], kind="stable").tolist():
                if not self._masked[left[i]]:
                    break
                self._place(int(left[i]), token, float(chances[i, token]), committed)
        self._tell(committed, sight)
        return True

    def _tell(self, committed: dict[int, float], sight: Sight) -> None:
        positions = sorted(committed)
        self._emit(
            CanvasEvent(
                self._index,
                sight.step,
                self._block,
                tuple(self._open()),
                tuple(position - self._first for position in positions),
                tuple(min(committed[position], 1.0) for position in positions),
                len(sight.scores.logits),
                sight.scores.ms,
            )
        )
