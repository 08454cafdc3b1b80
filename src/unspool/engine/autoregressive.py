"""The autoregressive loop: propose a tree, score it in one pass, accept a path, commit it, let the drafter observe.

Plain decoding is this loop with an empty draft. A batch is several rows whose trees are scored together; a batch plan
selects them. Methods fill the loop's slots (drafter, acceptance rule, shapers, constraint, batch plan); none has a
loop of its own.

Threads take turns on a model, one round each (``turns``). Events are handed out between rounds, when no thread has the
turn, so a thread can interleave streams, abandon them, or have them closed by another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from unspool.engine.batch import AllRows, BatchPlan, OpenRow
from unspool.engine.contracts import LanguageModel
from unspool.engine.prefill import PREFILL_BLOCK, extend
from unspool.engine.request import Request, check
from unspool.engine.row import MAX_TREE_NODES, Row
from unspool.engine.trace import EndEvent, Event, FinishReason
from unspool.engine.turns import turn
from unspool.errors import UnspoolError

__all__ = ["MAX_TREE_NODES", "PREFILL_BLOCK", "Decoding", "Request", "check", "decode", "extend"]


class Decoding:
    """Rows that are decoded together. Rows can be added and cancelled at any time; each ``step`` is one round.

    A row yields the same text as it does alone, whatever the others do. A fault of one row (its drafter, rule, shapers,
    constraint or stopping, or reading its prompt) ends that row with the reason ``"error"``; the others continue. A
    fault of all (the pass, the batch plan, Ctrl-C) closes all rows and is raised by ``step``.

    One thread at a time may call ``step`` or ``close``; any thread may call ``add`` and ``cancel``. The requests'
    ``on_event`` is not called: ``step`` returns the events.

    Args:
        model: decodes all rows.
        plan: which rows are open and which share a pass; default: all.
    """

    def __init__(self, model: LanguageModel, plan: BatchPlan | None = None) -> None:
        self._model = model
        self._plan = plan or AllRows()
        self._waiting: dict[int, Row] = {}  # by row number, in the order added
        self._rows: dict[int, Row] = {}  # the open rows, in the order opened
        self._events: list[Event] = []  # returned by the next step
        self._passes = 0
        self._added = 0
        self._guard = threading.Lock()  # guards the waiting rows
        self._closed = False

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def done(self) -> bool:
        """Whether all rows have ended and ``step`` has returned all events."""
        return not (self._waiting or self._rows or self._events)

    def add(self, request: Request) -> int:
        """Queue a request and return its row number, counted from 0.

        Raises:
            UnspoolError: if the request cannot be served. Nothing has been done then.
        """
        check(self._model, request)
        with self._guard:
            if self._closed:
                raise UnspoolError("this decoding is closed; start another one for more requests")
            number = self._added
            self._waiting[number] = Row(number, request)
            self._added += 1
        return number

    def cancel(self, row: int) -> None:
        """End a row now with the reason ``"cancelled"`` and free its memory. The next ``step`` returns its end.

        Waits for a round that another thread is running. A row that has already ended is left as it is.

        Raises:
            UnspoolError: if there is no such row, or if called within a round of the same thread.
        """
        if not 0 <= row < self._added:
            raise UnspoolError(f"there is no row {row}; {self._added} rows were added, counted from 0")
        with turn(self._model), self._guard:
            found = self._waiting.get(row) or self._rows.get(row)
            if found is not None:
                self._end(found, "cancelled")

    def step(self) -> list[Event]:
        """One round: open rows, prefill a block of each pending prompt, and score the trees of one pass.

        Returns:
            the events of the round, and the ends of rows cancelled before it; empty if all rows have ended.
        """
        if self.done:
            return []
        self._admit()
        with turn(self._model, *(model for row in self._rows.values() for model in row.request.assistants)):
            try:
                self._read()
                self._pass()
            except BaseException:
                # A drafter may still run in the background, on a model whose next turn belongs to another thread.
                self.close()
                raise
            events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Close all rows, without events."""
        with self._guard:
            self._closed = True
            rows = [*self._rows.values(), *self._waiting.values()]
            self._rows, self._waiting, self._events = {}, {}, []
        with ExitStack() as stack:  # closes all of them, even if one fails
            for row in reversed(rows):
                stack.callback(row.close)

    def _admit(self) -> None:
        """Fill the window. What needs the turn is left to the round, which by then knows the assistants it needs."""
        window = self._plan.window
        if not self._waiting or (window is not None and len(self._rows) >= window):
            return
        with self._guard:
            waiting = list(self._waiting.values())
            if self._plan.shortest_first:
                waiting.sort(key=lambda row: len(row.request.tokens))
            for row in waiting[: None if window is None else window - len(self._rows)]:
                self._rows[row.index] = self._waiting.pop(row.index)

    def _read(self) -> None:
        for row in list(self._rows.values()):
            if not row.ready:
                with self._alone(row):
                    if not row.opened:
                        self._events.append(row.open(self._model))
                    if event := row.read():
                        self._events.append(event)

    def _pass(self) -> None:
        proposals = []
        for row in self._chosen():
            with self._alone(row):
                proposals.append((row, *row.propose(self._model.vocab_size)))
        if not proposals:
            return
        sessions, trees = [row.session for row, _, _ in proposals], [tree for _, tree, _ in proposals]
        scores = self._model.score_many(sessions, trees)
        for (row, tree, draft_ms), score in zip(proposals, scores, strict=True):
            with self._alone(row):
                self._events += row.accept(tree, score, draft_ms, self._passes)
                if row.finished:
                    self._end(row, row.finished)
        self._passes += 1

    def _chosen(self) -> list[Row]:
        """The rows of the next pass. All other ready rows have waited one pass more."""
        ready = {row.index: row for row in self._rows.values() if row.ready}
        if not ready:
            return []
        chosen = self._plan.choose([OpenRow(row.index, len(row.tokens), row.waited) for row in ready.values()])
        if not chosen or len(set(chosen)) < len(chosen) or not ready.keys() >= set(chosen):
            raise ValueError(f"a batch plan must choose open rows, at least one and none twice, not {list(chosen)}")
        for row in ready.values():
            row.waited = 0 if row.index in chosen else row.waited + 1
        return [ready[index] for index in chosen]

    @contextmanager
    def _alone(self, row: Row) -> Iterator[None]:
        """A fault in here ends this row and no other."""
        try:
            yield
        except Exception as error:
            self._end(row, "error", error)

    def _end(self, row: Row, reason: FinishReason, error: Exception | None = None) -> None:
        try:
            row.close()
        except Exception as fault:  # an earlier error becomes its context
            reason, error = "error", fault
        self._events.append(EndEvent(row.index, reason, error))
        # Last: the decoding is not done while the row is listed.
        self._rows.pop(row.index, None)
        self._waiting.pop(row.index, None)


def decode(model: LanguageModel, requests: Sequence[Request], plan: BatchPlan | None = None) -> Iterator[Event]:
    """Decode the requests together and yield trace events as they happen.

    Closing the generator early (``break``, Ctrl-C) closes the sessions. If a row fails, its exception is raised after
    the other rows have ended.

    Args:
        plan: which rows share a pass; default: all.

    Raises:
        UnspoolError: if a request cannot be served; raised before any work.
    """
    decoding = Decoding(model, plan)
    for request in requests:
        decoding.add(request)
    return _events(decoding, requests)


def _events(decoding: Decoding, requests: Sequence[Request]) -> Generator[Event, None, None]:
    error: Exception | None = None
    with decoding:
        while not decoding.done:
            for event in decoding.step():
                if tell := requests[event.row].options.on_event:
                    tell(event)
                yield event
                if isinstance(event, EndEvent):
                    error = error or event.error
    if error is not None:
        raise error
