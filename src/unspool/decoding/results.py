"""The outcome of a request: a result, or a stream of pieces that ends with the result."""

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
    """The result of one prompt, in either loop.

    Attributes:
        text: the output without special tokens, cut before a stop string.
        token_ids: emitted ids, including the id that ended the text if the model emitted one. It is missing after a
            complete text that nothing can follow, such as one of ``choices``.
        logprobs: log-probability of each id in the distribution it was taken from, if requested.
        finish_reason: ``stop`` (end of text), ``length``, ``stop_string`` or ``stopping_criteria``.
        statistics: counts and times: ``Statistics``, or ``CanvasStatistics`` of a masked-diffusion model.
        prompt_token_ids: ids of the prompt.
        trace: all events of this sequence.
        method: the method, and any part of it that was missing: ``specdec_pp (no head)``.
        model: the name of the model.
        parsed: the value of a complete text under a grammar: the JSON of a ``json_schema``, the object of a pydantic
            model, else the text; None without a grammar, if the text was cut, or if there is a ``parse_error``.
        parse_error: why ``parsed`` is None although the text is complete, in one line: a validator of the pydantic
            model rejects what the grammar allows, or a number exceeds the range of floats. Otherwise None.
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
        """The readings of each probe for each emitted token, by the probe's spec."""
        found: dict[str, list[float]] = {}
        for event in self.trace:
            if isinstance(event, ProbeEvent):
                found.setdefault(event.probe, []).extend(event.values)
        return found


class Stream:
    """Iterates over pieces of text as they are decided; ``result`` is available after the iteration.

    It can be read once. ``break`` or an error ends it.

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
            raise UnspoolError("the stream was left before its end, or failed; create a new one")
        if not self._reading.acquire(blocking=False):
            raise UnspoolError("another thread is reading this stream; give each reader its own stream")
        try:
            return next(self._pieces, None)
        except BaseException:
            self._left = True
            raise
        finally:
            self._reading.release()

    def _leave(self) -> None:
        if self._reading.acquire(blocking=False):  # else another thread would read it to its end
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
            raise RuntimeError("the stream was left before its end, or failed, so there is no result; create a new one")
        if self._result is None:
            raise RuntimeError("the stream has not ended; iterate over it first")
        return self._result
