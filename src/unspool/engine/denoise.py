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
    BoundedPolicy,
    CanvasConstraint,
    CanvasScores,
    CanvasSession,
    Denoiser,
    Fed,
    ScoreTransform,
    Sight,
    StopRule,
    UnmaskPolicy,
    View,
)
from unspool.engine.canvas_scores import guided, predicted_end
from unspool.engine.trace import CanvasEvent, EndEvent, Event, StartEvent
from unspool.errors import UnspoolError

Cache = Literal["none", "prefix", "dual"]

_Passes = Generator[list[Fed], list[CanvasScores], None]
"""Asks for the passes of one step, one for each session of the row."""


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
        stop_at_eos: whether an end token with no mask before it ends the decoding, since nothing behind it belongs to
            the text, which stays the same; the rest is filled with it.
        truncate_at_eos: cuts the canvas behind an end token, so that what follows is neither scored nor filled token by
            token: Learn2PD's end-of-text prediction. After each pass, behind the first end token that it committed;
            else behind the masked slot that predicts the end with the highest probability, if that is at least this
            number. 0 is the paper's rule, which a wrong prediction makes lose text for good; None never cuts. With a
            cache, a pass over all of the shorter canvas follows.
        guidance_scale: w of classifier-free guidance, in LLaDA's form: logits are u + (w + 1) (c - u), with c those of
            the canvas and u those of the canvas with a masked prompt. 0 is none; otherwise a step takes two passes.
    """

    temperature: float = 0.0
    seed: int = 0
    cache: Cache = "none"
    stop_at_eos: bool = False
    truncate_at_eos: float | None = None
    guidance_scale: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UnspoolError(f"temperature must be 0 or above, not {self.temperature}")
        if self.cache not in ("none", "prefix", "dual"):
            raise UnspoolError(f"cache must be none, prefix or dual, not {self.cache!r}")
        if self.truncate_at_eos is not None and not 0 <= self.truncate_at_eos <= 1:
            raise UnspoolError(f"truncate_at_eos is a probability, 0 to 1, not {self.truncate_at_eos}")
        if not 0 <= self.guidance_scale < float("inf"):
            raise UnspoolError(f"guidance_scale must be 0 or above, not {self.guidance_scale}")

    @property
    def passes_per_step(self) -> int:
        """Passes over the model that a step takes."""
        return 2 if self.guidance_scale else 1


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
    options, parts = request.options, request.parts
    if model.eos_token_id is None and (options.stop_at_eos or options.truncate_at_eos is not None):
        name = "stop_at_eos" if options.stop_at_eos else "truncate_at_eos"
        raise UnspoolError(f"{name} needs a model with an end token; leave it out")
    if options.truncate_at_eos is not None:
        if parts.constraint is not None:
            raise UnspoolError("truncate_at_eos may cut off what a constraint asks for; use stop_at_eos instead")
        if any(token is not None for token in request.slots):
            raise UnspoolError("truncate_at_eos may cut off slots that are given; use stop_at_eos instead")
    if options.guidance_scale and not request.prompt:
        raise UnspoolError("guidance_scale compares with a masked prompt, and there is none; leave it out")
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
    try:
        running = [(row, row.passes()) for row in rows]
        waiting = [(row, passes, feds) for row, passes in running if (feds := next(passes, None))]
        while waiting:
            sessions = [session for row, *_ in waiting for session in row.sessions]
            scores = iter(model.score_many(sessions, [fed for *_, feds in waiting for fed in feds]))
            answers = [[next(scores) for _ in feds] for *_, feds in waiting]
            waiting = [
                (row, passes, after)
                for (row, passes, _), answer in zip(waiting, answers, strict=True)
                if (after := _send(passes, answer)) is not None
            ]
    finally:
        for row in rows:
            row.close()
    return [row.slots() for row in rows]


def _send(passes: _Passes, scores: list[CanvasScores]) -> list[Fed] | None:
    try:
        return passes.send(scores)
    except StopIteration:
        return None


class _Row:
    """One canvas on its way.

    Attributes:
        sessions: of the canvas, and of the one with a masked prompt if there is guidance.
    """

    def __init__(self, model: Denoiser, request: CanvasRequest, index: int, emit: Callable[[Event], None]) -> None:
        self._model = model
        self._request = request
        self._index = index
        self._emit = emit
        filled = [model.mask_id if token is None else token for token in request.slots]
        self._tokens = np.array([*request.prompt, *filled], dtype=np.int64)
        self._length = len(self._tokens)  # without what was cut off
        self._first = len(request.prompt)
        self._masked = self._tokens == model.mask_id
        self._masked[: self._first] = False
        self._step = 0
        self._block = 0
        self._refused: dict[int, list[int]] = {}  # by position, tokens that the constraint does not allow
        self._fresh = True  # nothing was fed to the sessions yet
        self.sessions: list[CanvasSession] = []

    def slots(self) -> list[int]:
        tokens: list[int] = self._tokens[self._first :].tolist()
        return tokens

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.sessions = []

    def passes(self) -> _Passes:
        """Ask for pass after pass until no mask is left."""
        options, settings = self._request.options, dict(self._model.settings)
        if options.guidance_scale:
            settings["guidance_scale"] = str(options.guidance_scale)
        self._emit(
            StartEvent(self._index, self._first, self._request.name, settings, options.temperature, options.seed)
        )
        self._open()
        start = self._first
        while self._masked.any():
            start += int(np.argmax(self._masked[start:]))  # given slots before the first mask belong to no block
            # Every block begins with a pass over the whole canvas, which refreshes what is cached.
            sight = self._sight((yield self._asked(0, self._length)))
            if self._stops(sight):
                break
            stop = self._block_end(start, sight)
            self._enter(start, stop, sight)
            while True:
                self._tell(self._commit(*self._chosen(start, stop, sight)), sight)
                if not self._masked[start:stop].any():
                    break
                sight = self._sight((yield self._asked(*self._span(start, stop))))
                if self._stops(sight):
                    break
            start = stop
            self._block += 1
        self._emit(EndEvent(self._index, "stop" if self._model.eos_token_id in self.slots() else "length"))

    def _open(self) -> None:
        self.close()
        self.sessions = [self._model.open() for _ in range(self._request.options.passes_per_step)]
        self._fresh = True

    def _asked(self, start: int, stop: int) -> list[Fed]:
        if self._fresh:
            start, stop, self._fresh = 0, self._length, False
        canvas = self._tokens[: self._length]
        fed = [Fed(canvas, start, stop)]
        if self._request.options.guidance_scale:
            blank = canvas.copy()
            blank[: self._first] = self._model.mask_id
            fed.append(Fed(blank, start, stop))
        return fed

    def _block_end(self, start: int, sight: Sight) -> int:
        policy = self._request.parts.policy
        length = max(1, self._request.parts.schedule.next_block(start, sight))
        if isinstance(policy, BoundedPolicy):
            length = min(length, policy.longest_block)
        return min(self._length, start + length)

    def _span(self, start: int, stop: int) -> tuple[int, int]:
        cache = self._request.options.cache
        return (0 if cache == "none" else start), (min(stop, self._length) if cache == "dual" else self._length)

    def _sight(self, scores: list[CanvasScores]) -> Sight:
        self._step += 1
        scale = self._request.options.guidance_scale
        seen = guided(scores[0], scores[1], scale) if scale else scores[0]
        return Sight(self._tokens[: self._length], self._masked[: self._length], self._first, seen, self._step - 1)

    def _view(self, start: int, stop: int, sight: Sight, logits: NDArray[np.float64]) -> View:
        options = self._request.options
        scores = logits
        if options.temperature > 0:
            drawn = [noise.canvas_gumbel(options.seed, p, sight.step, logits.shape[1]) for p in range(start, stop)]
            scores = logits + options.temperature * np.array(drawn)
        return View(sight, start, self._masked[start:stop].copy(), logits, scores.argmax(axis=1), options.seed)

    def _raw(self, start: int, stop: int, sight: Sight) -> NDArray[np.float64]:
        rows = sight.logits(start, min(stop, self._length))
        assert rows is not None  # every pass feeds the active block
        logits = np.full((stop - start, rows.shape[1]), -np.inf)
        logits[: len(rows)] = rows
        logits[:, self._model.mask_id] = -np.inf
        if self._model.eos_token_id is not None:
            logits[len(rows) :, self._model.eos_token_id] = 0.0  # was cut off
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

    def _commit(self, view: View, slots: NDArray[np.int64]) -> dict[int, float]:
        """Fill these slots of the block, and what follows from it.

        Returns:
            Confidence of each position that got its token.
        """
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
        self._end(committed, view.sight)
        return committed

    def _place(self, position: int, token: int, confidence: float, committed: dict[int, float]) -> None:
        """Commit a token unless the constraint refuses it, and what follows from it."""
        constraint = self._request.parts.constraint
        if not self._masked[position]:  # an end token before it has filled it
            return
        if constraint is not None and not constraint.allows(self._slots(), position - self._first, token):
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

    def _end(self, committed: dict[int, float], sight: Sight) -> None:
        """Stop, or cut the canvas, behind an end token if the options ask for it."""
        options, eos = self._request.options, self._model.eos_token_id
        if eos is None:
            return
        if options.stop_at_eos:
            ends = self._first + np.flatnonzero(self._tokens[self._first :] == eos)
            if len(ends) and not self._masked[: ends[0]].any():
                self._tokens[self._masked] = eos
                self._masked[:] = False
        if options.truncate_at_eos is None:
            return
        last = min((position for position in committed if self._tokens[position] == eos), default=None)
        if last is None:
            last = predicted_end(sight.scores, self._masked, self._model.mask_id, eos, options.truncate_at_eos)
        if last is not None and last + 1 < self._length:
            self._tokens[last + 1 :] = eos
            self._masked[last + 1 :] = False
            self._length = last + 1
            self._open()

    def _slots(self) -> list[int | None]:
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
                tuple(self._slots()),
                tuple(position - self._first for position in positions),
                tuple(min(committed[position], 1.0) for position in positions),
                len(sight.scores.logits) * self._request.options.passes_per_step,
                sight.scores.ms,
            )
        )
