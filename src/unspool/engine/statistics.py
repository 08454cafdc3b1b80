"""Statistics of a request, computed only from its trace events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unspool.engine.trace import CanvasEvent, Event, PrefillEvent, StepEvent


@dataclass(frozen=True)
class Statistics:
    """Figures of one decoded sequence. Times are in seconds.

    Attributes:
        tokens: emitted tokens.
        passes: scoring passes of the loop (without prefill).
        nodes: scored nodes, roots included.
        prefill_seconds: time of the prefill.
        decode_seconds: time of all passes, and of everything between them.
        scoring_seconds: the part of ``decode_seconds`` in the model.
        by_source: emitted tokens per source; ``"model"`` counts the bonus tokens, which no draft contained.
    """

    tokens: int
    passes: int
    nodes: int
    prefill_seconds: float
    decode_seconds: float
    scoring_seconds: float
    by_source: dict[str, int]

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, without prefill."""
        return self.tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def mean_accepted_tokens(self) -> float:
        """Mean accepted tokens per forward pass (acceptance length), bonus token included; 1 for plain decoding."""
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def overhead(self) -> float:
        """Share of the decoding time outside the model, 0 to 1."""
        return 1 - self.scoring_seconds / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class CanvasStatistics:
    """Figures of one filled canvas.

    Attributes:
        tokens: of the text, the end token included.
        passes: of the model.
        commits: slots that each pass filled.
        fed: positions scored by all passes; the cost of passes if caches omit positions.
        seconds: in the model.
    """

    tokens: int
    passes: int
    commits: tuple[int, ...]
    fed: int
    seconds: float

    @property
    def tokens_per_pass(self) -> float:
        """Counts tokens of the text, without the fill after it."""
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def summarise(events: Iterable[Event], row: int = 0) -> Statistics:
    """Statistics of one row of a trace."""
    tokens = passes = nodes = 0
    prefill = total = scoring = 0.0
    by_source: dict[str, int] = {}
    for event in events:
        if event.row != row:
            continue
        if isinstance(event, PrefillEvent):
            prefill += event.ms
        elif isinstance(event, StepEvent):
            passes += 1
            nodes += len(event.tokens)
            tokens += len(event.emitted)
            scoring += event.score_ms
            total += event.draft_ms + event.score_ms + event.accept_ms + event.observe_ms
            drafted = event.accepted[1:]
            for i in range(len(event.emitted)):
                source = event.sources[drafted[i]] if i < len(drafted) else "model"
                by_source[source] = by_source.get(source, 0) + 1
    return Statistics(tokens, passes, nodes, prefill / 1000, total / 1000, scoring / 1000, by_source)


def summarise_canvas(events: Iterable[Event], tokens: int, passes_per_step: int) -> CanvasStatistics:
    """Statistics of the canvas that a trace is of.

    Args:
        tokens: of the text.
        passes_per_step: passes over the model that a step takes.
    """
    steps = [event for event in events if isinstance(event, CanvasEvent)]
    return CanvasStatistics(
        tokens,
        len(steps) * passes_per_step,
        tuple(len(event.committed) for event in steps),
        sum(event.fed for event in steps),
        sum(event.ms for event in steps) / 1000,
    )


def grouping_rate(events: Iterable[Event]) -> float | None:
    """Share of a batch's passes in which all rows had texts of equal length, so that no row was padded.

    Args:
        events: all rows of one batch, in any order.

    Returns:
        0 to 1, over the passes that scored several rows; None if there were none.
    """
    lengths: dict[int, list[int]] = {}
    for event in events:
        if isinstance(event, StepEvent):
            lengths.setdefault(event.batch_pass, []).append(event.position)
    several = [rows for rows in lengths.values() if len(rows) > 1]
    return sum(len(set(rows)) == 1 for rows in several) / len(several) if several else None
