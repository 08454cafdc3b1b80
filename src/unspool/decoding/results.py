"""What a request gives: a result, or a stream of pieces with the result at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

from typing_extensions import TypeVar

from unspool.engine.statistics import CanvasStatistics, Statistics
from unspool.engine.trace import Event, FinishReason, ProbeEvent
from unspool.errors import UnspoolError

Figures = TypeVar("Figures", bound="Statistics | CanvasStatistics", default=Statistics)


@dataclass(frozen=True)
class Result(Generic[Figures]):
    """What one prompt gave, in either loop.

    Attributes:
        text: the output, special tokens left out, cut before a stop string.
        token_ids: emitted ids; the id that ended the text is the last one, where the model was asked for it. Behind a
            text that is complete and cannot go on, such as one of ``choices``, it is not.
        logprobs: log-probability of each id in the distribution it was taken from, if asked for.
        finish_reason: ``stop`` (end of text), ``length``, ``stop_string`` or ``stopping_criteria``.
        statistics: counts and times: ``Statistics``, or ``CanvasStatistics`` of a masked-diffusion model.
        prompt_token_ids: ids that were decoded from.
        trace: all events of this sequence.
        method: what decoded it, and what of the method was missing: ``specdec_pp (no head)``.
        model: the name of the model.
        parsed: what a text under a grammar says once it is complete: the JSON of a ``json_schema``, the object of a
            pydantic model, else the text; None without a grammar, where the text was cut, or where there is a
            ``parse_error``.
        parse_error: why ``parsed`` is None although the text is complete, in one line: a validator of the pydantic
            model refuses what the grammar allows, or a number is beyond all floats. None if nothing went wrong.
        seed: of the noise of this text; the prompt alone with this seed gives the same text.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: FinishReason
    statistics: Figures
    prompt_token_ids: list[int]
    trace: list[Event] = field(repr=False)
    method: str
    model: str
    parsed: Any = None
    parse_error: str | None = None
    seed: int = 0

    @property
    def readings(self) -> dict[str, list[float]]:
        """What each probe read of each emitted token, by the probe's spec."""
        found: dict[str, list[float]] = {}
        for event in self.trace:
            if isinstance(event, ProbeEvent):
                found.setdefault(event.probe, []).extend(event.values)
        return found


class Stream:
    """Iterates over pieces of text as they are decided; ``result`` is there once the iteration is over.

    It is read once. Whoever leaves it early (``break``) ends it, and so does an error.

    Raises:
        UnspoolError: if it is read again after that, or by two threads at once.
    """

    def __init__(self, pieces: Generator[str, None, None], finish: Callable[[], Result]) -> None:
        self._pieces = pieces
        self._finish = finish
        self._result: Result | None = None
        self._left = False
        self._reading = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        while (piece := self._next()) is not None:
            try:
                yield piece
            except BaseException:
                self._leave()
                raise
        self._result = self._finish()

    def _next(self) -> str | None:
        if self._left:
            raise UnspoolError("the stream was left before its end, or failed; make a new one")
        if not self._reading.acquire(blocking=False):
            raise UnspoolError("the stream is being read at this moment; give each reader a stream of its own")
        try:
            return next(self._pieces, None)
        except BaseException:
            self._left = True
            raise
        finally:
            self._reading.release()

    def _leave(self) -> None:
        if self._reading.acquire(blocking=False):  # else another thread reads it to its end
            self._left = self._result is None
            try:
                self._pieces.close()
            finally:
                self._reading.release()

    @property
    def result(self) -> Result:
        """The same result that ``generate`` gives.

        Raises:
            RuntimeError: before the iteration has ended.
        """
        if self._left:
            raise RuntimeError("the stream was left before its end, or failed: there is no result; make a new one")
        if self._result is None:
            raise RuntimeError("the stream has not ended; iterate over it first")
        return self._result
