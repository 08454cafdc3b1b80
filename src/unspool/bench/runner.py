"""Schedules the runs and makes them: prompt by prompt, all contestants in turn, each time in a new random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from unspool import suites
from unspool.bench.contestants import Contestant
from unspool.bench.engines import Decoded, Task
from unspool.bench.process import ContestantError
from unspool.bench.result import Run
from unspool.errors import UnspoolError
from unspool.suites import quality
from unspool.suites.prompts import Prompt

WARM_UP = "Explain in a few sentences how a rainbow forms."
_WARM_UP_TOKENS = 32


class Contender(Protocol):
    """A started contestant (``process.Worker``). Raises ``ContestantError`` if it cannot continue."""

    settings: dict[str, str]
    memory: int

    def decode(self, task: Task) -> Decoded: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Progress(Protocol):
    """Receives the progress."""

    def say(self, message: str) -> None: ...

    def ran(self, runs: Sequence[Run], done: int, total: int) -> None:
        """A run has finished: all runs so far, and how many of all turns are done."""
        ...


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        contestants: plain decoding first.
        prompts: of the suite.
        ids: by prompt id, the ids to decode; the warm-up's under ``""``.
        decode: from a prompt's ids and an output to the output's text.
        repeats: number of runs per prompt and contestant.
        seed: of the order, and of sampling.
        max_new_tokens, temperature: as in ``GenerationOptions``.
        eos: ids that end a text.
    """

    contestants: Sequence[Contestant]
    prompts: Sequence[Prompt]
    ids: Mapping[str, list[int]]
    decode: Callable[[list[int]], str]
    repeats: int
    seed: int
    max_new_tokens: int
    temperature: float
    eos: list[int]

    def task(self, prompt: str) -> Task:
        return Task(self.ids[prompt], self.max_new_tokens, self.temperature, self.seed, self.eos)


@dataclass
class Measured:
    """The result of a plan: runs in order, and by contestant its settings or why it was left out."""

    runs: list[Run] = field(default_factory=list)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


Turn = tuple[int, Prompt, str]
"""Repeat, prompt and name of the contestant."""


def schedule(plan: Plan) -> Iterator[Turn]:
    """All turns in order. The same plan yields the same order, so that an interrupted benchmark can resume."""
    for repeat in range(plan.repeats):
        generator = random.Random(f"{plan.seed} {repeat}")
        names = [contestant.name for contestant in plan.contestants]
        for prompt in suites.rounds(plan.prompts, generator):
            for name in generator.sample(names, len(names)):
                yield repeat, prompt, name


def measure(
    plan: Plan,
    start: Callable[[Contestant], Contender],
    progress: Progress,
    finished: Sequence[Run] = (),
    keep: Callable[[Run, int], None] = lambda run, memory: None,
) -> Measured:
    """Start and warm up all contestants, and make the missing runs. All contestants are stopped at the end in any case.

    Args:
        finished: runs of an earlier session.
        keep: receives each finished run at once, with its contestant's peak memory in bytes.

    Raises:
        UnspoolError: if a contestant of unspool fails. A peer that fails is left out, with all its runs.
    """
    measured = Measured(list(finished))
    contenders: dict[str, Contender] = {}
    repeats: dict[str, int] = {}

    def failed(contestant: Contestant, error: ContestantError) -> None:
        if not contestant.is_peer:
            raise UnspoolError(f"{contestant.name}: {error}") from error
        progress.say(f"{contestant.name} is left out: {error}")
        name = contestant.name
        measured.left_out[name] = str(error)
        measured.settings.pop(name, None)
        measured.runs = [run for run in measured.runs if run.contestant != name]
        if name in contenders:
            contenders.pop(name).close()

    by_name = {contestant.name: contestant for contestant in plan.contestants}
    done = {(run.repeat, run.prompt, run.contestant) for run in finished}
    turns = list(schedule(plan))
    try:
        for name, contestant in by_name.items():
            try:
                progress.say(f"loading {name}")
                contenders[name] = start(contestant)
                measured.settings[name] = contenders[name].settings
                progress.say(f"warming up {name}")
                contenders[name].decode(
                    Task(plan.ids[""], min(_WARM_UP_TOKENS, plan.max_new_tokens), plan.temperature, plan.seed, plan.eos)
                )
            except ContestantError as error:
                failed(contestant, error)
        for index, (repeat, prompt, name) in enumerate(turns, 1):
            if name not in contenders or (repeat, prompt.id, name) in done:
                continue
            contender = contenders[name]
            try:
                if repeats.get(name) != repeat:
                    # A repeated prompt must not be drafted from its first answer.
                    contender.reset()
                    repeats[name] = repeat
                decoded = contender.decode(plan.task(prompt.id))
            except ContestantError as error:
                failed(by_name[name], error)
                continue
            text = plan.decode(decoded.token_ids)
            run = Run(
                contestant=name,
                prompt=prompt.id,
                category=prompt.category,
                repeat=repeat,
                text=text,
                quality=quality.score(prompt, text),
                **asdict(decoded),
            )
            measured.runs.append(run)
            keep(run, contender.memory)
            progress.ran(measured.runs, index, len(turns))
    finally:
        for contender in contenders.values():
            contender.close()
    return measured
