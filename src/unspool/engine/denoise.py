"""The denoise loop: score the canvas, choose positions, unmask. Methods fill its parts; none has a loop of its own.

Each row is a generator that requests passes. A batch serves all rows together, so a row decodes as it does alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise
from unspool.engine.canvas import (
    BlockState,
    BoundedPolicy,
    CanvasPass,
    CanvasScores,
    CanvasSession,
    CanvasState,
    Denoiser,
)
from unspool.engine.canvas_request import CanvasRequest, check
from unspool.engine.canvas_scores import guided, predicted_end
from unspool.engine.trace import CanvasEvent, EndEvent, Event, StartEvent
from unspool.engine.turns import turn
from unspool.errors import UnspoolError

_Passes = Generator[list[CanvasPass], list[CanvasScores], None]
"""Requests the passes of one step, one for each session of the row."""


def denoise(
    model: Denoiser, requests: Sequence[CanvasRequest], on_event: Callable[[Event], None] = lambda event: None
) -> list[list[int]]:
    """Fill canvases in one batch.

    Returns:
        The tokens of the slots of each request; after an end token, the fill.

    Raises:
        UnspoolError: see ``check``; raised before any pass.
    """
    for request in requests:
        check(model, request)
    events: list[Event] = []  # delivered between passes, when no thread has the turn on the model
    rows = [_Row(model, request, index, events.append) for index, request in enumerate(requests)]

    def tell() -> None:
        while events:
            on_event(events.pop(0))

    try:
        running = [(row, row.passes()) for row in rows]
        waiting = [(row, passes, feds) for row, passes in running if (feds := next(passes, None))]
        tell()
        while waiting:
            with turn(model):
                waiting = _pass(model, waiting)
            tell()
    finally:
        for row in rows:
            row.close()
    return [row.slots() for row in rows]


def _pass(model: Denoiser, waiting: list[_Waiting]) -> list[_Waiting]:
    """One pass over the waiting rows; returns those that wait for another."""
    sessions = [session for row, *_ in waiting for session in row.sessions]
    scores = iter(model.score_many(sessions, [fed for *_, feds in waiting for fed in feds]))
    answers = [[next(scores) for _ in feds] for *_, feds in waiting]
    return [
        (row, passes, after)
        for (row, passes, _), answer in zip(waiting, answers, strict=True)
        if (after := _send(passes, answer)) is not None
    ]


def _send(passes: _Passes, scores: list[CanvasScores]) -> list[CanvasPass] | None:
    try:
        return passes.send(scores)
    except StopIteration:
        return None


_Waiting = tuple["_Row", _Passes, list[CanvasPass]]
"""A row, its generator, and the passes that it requests."""


class _Row:
    """The state of one canvas.

    Attributes:
        sessions: of the canvas and, with guidance, of the canvas with a masked prompt.
    """

    def __init__(self, model: Denoiser, request: CanvasRequest, index: int, emit: Callable[[Event], None]) -> None:
        self._model = model
        self._request = request
        self._index = index
        self._emit = emit
        filled = [model.mask_id if token is None else token for token in request.slots]
        self._tokens = np.array([*request.prompt, *filled], dtype=np.int64)
        self._length = len(self._tokens)  # without the truncated end
        self._first = len(request.prompt)
        self._masked = self._tokens == model.mask_id
        texts = [i for i, token in enumerate(request.slots) if token not in (None, model.eos_token_id)]
        self._open_end = self._first + (texts[-1] if texts else 0)  # where the text may end: after the last given slot
        self._masked[: self._first] = False
        self._step = 0
        self._block = 0
        self._refused: dict[int, list[int]] = {}  # by position, tokens that the constraint refused
        self._fresh = True  # nothing has been fed to the sessions yet
        self.sessions: list[CanvasSession] = []

    def slots(self) -> list[int]:
        tokens: list[int] = self._tokens[self._first :].tolist()
        return tokens

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.sessions = []

    def passes(self) -> _Passes:
        """Request passes until no mask is left."""
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

    def _asked(self, start: int, stop: int) -> list[CanvasPass]:
        if self._fresh:
            start, stop, self._fresh = 0, self._length, False
        canvas = self._tokens[: self._length]
        fed = [CanvasPass(canvas, start, stop)]
        if self._request.options.guidance_scale:
            blank = canvas.copy()
            blank[: self._first] = self._model.mask_id
            fed.append(CanvasPass(blank, start, stop))
        return fed

    def _block_end(self, start: int, sight: CanvasState) -> int:
        policy = self._request.parts.policy
        length = max(1, self._request.parts.schedule.next_block(start, sight))
        if isinstance(policy, BoundedPolicy):
            length = min(length, policy.longest_block)
        return min(self._length, start + length)

    def _span(self, start: int, stop: int) -> tuple[int, int]:
        cache = self._request.options.cache
        return (0 if cache == "none" else start), (min(stop, self._length) if cache == "dual" else self._length)

    def _sight(self, scores: list[CanvasScores]) -> CanvasState:
        self._step += 1
        scale = self._request.options.guidance_scale
        seen = guided(scores[0], scores[1], scale) if scale else scores[0]
        return CanvasState(
            self._tokens[: self._length], self._masked[: self._length], self._first, seen, self._step - 1
        )

    def _view(self, start: int, stop: int, sight: CanvasState, logits: NDArray[np.float64]) -> BlockState:
        options = self._request.options
        scores = logits
        if options.temperature > 0:
            drawn = [noise.canvas_gumbel(options.seed, p, sight.step, logits.shape[1]) for p in range(start, stop)]
            scores = logits + options.temperature * np.array(drawn)
        return BlockState(sight, start, self._masked[start:stop].copy(), logits, scores.argmax(axis=1), options.seed)

    def _raw(self, start: int, stop: int, sight: CanvasState) -> NDArray[np.float64]:
        rows = sight.logits(start, min(stop, self._length))
        assert rows is not None  # every pass feeds the active block
        logits = np.full((stop - start, rows.shape[1]), -np.inf)
        logits[: len(rows)] = rows
        logits[:, self._model.mask_id] = -np.inf
        if self._model.eos_token_id is not None:
            logits[: max(0, self._open_end - start), self._model.eos_token_id] = -np.inf
            logits[len(rows) :, self._model.eos_token_id] = 0.0  # truncated
        for position, tokens in self._refused.items():
            if start <= position < stop:
                logits[position - start, tokens] = -np.inf
        return logits

    def _enter(self, start: int, stop: int, sight: CanvasState) -> None:
        view = self._view(start, stop, sight, self._raw(start, stop, sight))
        for transform in self._request.parts.transforms:
            transform.start_block(view)
        self._request.parts.policy.start_block(view)

    def _chosen(self, start: int, stop: int, sight: CanvasState) -> tuple[BlockState, NDArray[np.int64]]:
        view = self._view(start, stop, sight, self._raw(start, stop, sight))
        for transform in self._request.parts.transforms:
            view = self._view(start, stop, sight, transform(view))
        chosen = np.flatnonzero(self._request.parts.policy.select(view) & view.masked)
        if not len(chosen):
            chosen = np.array([np.argmax(np.where(view.masked, view.confidence, -1.0))])
        return view, chosen

    def _commit(self, view: BlockState, slots: NDArray[np.int64]) -> dict[int, float]:
        """Fill these slots of the block, with all consequences.

        Returns:
            Confidence of each position that was filled.
        """
        committed: dict[int, float] = {}
        for slot in slots[np.argsort(-view.confidence[slots], kind="stable")].tolist():
            self._place(view.start + slot, int(view.tokens[slot]), float(view.confidence[slot]), committed)
        left = np.where(view.masked[:, None], view.probabilities, -1.0)
        for position, tokens in self._refused.items():
            if 0 <= position - view.start < len(left):
                left[position - view.start, tokens] = -1.0
        while not committed:  # only a constraint can refuse
            slot, token = np.unravel_index(int(left.argmax()), left.shape)
            if left[slot, token] < 0:
                raise UnspoolError("the constraint allows no token in any slot, though it allowed the canvas before")
            self._place(view.start + int(slot), int(token), float(left[slot, token]), committed)
            left[slot, token] = -1.0
        self._end(committed, view.sight)
        return committed

    def _place(self, position: int, token: int, confidence: float, committed: dict[int, float]) -> None:
        """Commit a token unless the constraint refuses it, with all consequences."""
        constraint = self._request.parts.constraint
        if not self._masked[position]:  # already filled after an end token
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

    def _end(self, committed: dict[int, float], sight: CanvasState) -> None:
        """Stop or truncate the canvas after an end token, if the options ask for it."""
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
        """The slots; None where masked."""
        slots = zip(self._tokens[self._first :].tolist(), self._masked[self._first :].tolist(), strict=True)
        return [None if masked else token for token, masked in slots]

    def _stops(self, sight: CanvasState) -> bool:
        """Fill all masks with the most likely allowed tokens if the stop rule says so."""
        rule = self._request.parts.stop
        left = np.flatnonzero(self._masked)
        first, end = int(left[0]), int(left[-1]) + 1
        # A pass over a part says nothing new about the rest, so it cannot fill it.
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

    def _tell(self, committed: dict[int, float], sight: CanvasState) -> None:
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
