"""The engine interface of a contestant's process, the timing of emissions, and unspool as such an engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from unspool.engine.contracts import Ability
from unspool.engine.method import DRAFTER

if TYPE_CHECKING:
    from unspool.engine.contracts import SpecialisingModel
    from unspool.engine.trace import Event, StepEvent


@dataclass(frozen=True)
class Settings:
    """Settings with which every contestant is loaded.

    Attributes:
        model: for ``unspool.load``.
        threads: number of compute threads.
        context: maximum length of a prompt with its output, in tokens.
        assistant: draft model for ``unspool.load``; loaded only for the methods that need one.
    """

    model: str
    threads: int
    context: int
    assistant: str | None = None


@dataclass(frozen=True)
class Task:
    """One prompt to decode.

    Attributes:
        ids: the prompt.
        max_new_tokens, temperature, seed: as in ``GenerationOptions``.
        eos: ids that end the text.
    """

    ids: list[int]
    max_new_tokens: int
    temperature: float
    seed: int
    eos: list[int]


@dataclass(frozen=True)
class Decoded:
    """The result of a task; the attributes are those of ``result.Run``."""

    token_ids: list[int]
    first_seconds: float
    seconds: float
    timed_tokens: int
    passes: int | None = None
    decode_seconds: float | None = None
    scoring_seconds: float | None = None
    by_depth: list[list[int]] = field(default_factory=list)
    by_source: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded contestant."""

    settings: dict[str, str]

    def decode(self, task: Task) -> Decoded: ...

    def reset(self) -> None:
        """Discard everything learned from earlier prompts."""
        ...


class Clock:
    """Records the time of each emission as it reaches the caller, before detokenisation. Starts on construction."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._counts: list[int] = []
        self._times: list[float] = []
        self._start = time.perf_counter()

    def emit(self, tokens: Sequence[int]) -> None:
        self._times.append(time.perf_counter())
        self._counts.append(len(tokens))
        self.token_ids.extend(tokens)

    def decoded(self, **figures: Any) -> Decoded:
        """The times, with the engine's other figures. Without an emission, the first is now: the end of the text."""
        times = self._times or [time.perf_counter()]
        return Decoded(self.token_ids, times[0] - self._start, times[-1] - times[0], sum(self._counts[1:]), **figures)


class Unspool:
    """unspool with one method. What the method learns carries over from prompt to prompt, as it does for users."""

    def __init__(self, settings: Settings, method: str, weights: str) -> None:
        import unspool
        from unspool.methods import choose

        self.model = unspool.load(
            settings.model,
            assistant_model=settings.assistant if choose(method, DRAFTER).row.needs.assistant else None,
            weights=weights,
            threads=settings.threads,
        )
        language_model = self.model.language_model
        if Ability.SPECIALISE_WIDTHS in language_model.abilities:
            # Every method starts in the state of a long-running process, and none pays for it in its figures.
            cast("SpecialisingModel", language_model).specialise_widths()
        self.method = method
        self.settings = {**self.model.language_model.settings, "method": method}

    def decode(self, task: Task) -> Decoded:
        from unspool import methods
        from unspool.decoding.generate import assemble
        from unspool.engine.autoregressive import decode
        from unspool.engine.options import GenerationOptions
        from unspool.engine.statistics import summarise
        from unspool.engine.trace import StepEvent

        model = self.model
        clock = Clock()
        resources = model.resources()
        options = GenerationOptions(
            max_new_tokens=task.max_new_tokens, temperature=task.temperature, seed=task.seed, eos_token_id=task.eos
        )
        rule = methods.acceptance_rule(None, options.greedy, resources)
        method = methods.choose(self.method, DRAFTER)
        request = assemble(resources, task.ids, method, rule, options, eos=frozenset(task.eos))
        events: list[Event] = []
        for event in decode(model.language_model, [request]):
            if isinstance(event, StepEvent):
                clock.emit(event.emitted)
            events.append(event)
        figures = summarise(events)
        return clock.decoded(
            passes=figures.passes,
            decode_seconds=figures.decode_seconds,
            scoring_seconds=figures.scoring_seconds,
            by_depth=by_depth(event for event in events if isinstance(event, StepEvent)),
            by_source=figures.by_source,
        )

    def reset(self) -> None:
        self.model.memories.clear()

    def curve(self, fresh: bool) -> dict[str, Any]:
        """The cost curve as plain data, measured now if ``fresh``. Stored in the cache, where ``auto`` finds it."""
        return asdict(self.model.cost_curve(fresh=fresh))


def by_depth(steps: Iterable[StepEvent]) -> list[list[int]]:
    """For each depth from 1, [accepted, drafted] nodes. Accepted nodes after the end of the text do not count."""
    counts: list[list[int]] = []
    for step in steps:
        depths = [0] * len(step.tokens)
        for node, parent in enumerate(step.parents):
            if node:
                depths[node] = depths[parent] + 1
        counts += [[0, 0] for _ in range(max(depths) - len(counts))]
        for depth in depths[1:]:
            counts[depth - 1][1] += 1
        for node in step.accepted[1 : len(step.emitted) + 1]:
            counts[depths[node] - 1][0] += 1
    return counts
