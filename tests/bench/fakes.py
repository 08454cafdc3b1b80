"""Contestants without a process and without a model, for the tests of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unspool.bench.contestants import Contestant
from unspool.bench.engines import Decoded, Task
from unspool.bench.process import ContestantError
from unspool.bench.result import Bench, Run
from unspool.bench.runner import Plan
from unspool.suites.prompts import Prompt

PLAIN = Contestant("plain", "plain", "int8")
AUTO = Contestant("auto", "auto", "int8")
INT4 = Contestant("plain@int4", "plain", "int4")
PEER = Contestant("llama_cpp")


class Fake:
    """Answers every prompt with its first id, three times; writes what it is asked into a log that all share.

    Args:
        stop_after: number of decodings, the warm-up included, after which ``error`` is raised.
    """

    def __init__(
        self,
        contestant: Contestant,
        log: list[tuple[str, Any]],
        stop_after: int | None = None,
        error: type[BaseException] = ContestantError,
    ) -> None:
        self.name = contestant.name
        self.settings = {"weights": contestant.weights or "own"}
        self.memory = 0
        self._log = log
        self._left = stop_after
        self._error = error

    def decode(self, task: Task) -> Decoded:
        if self._left == 0:
            raise self._error("out of luck")
        if self._left is not None:
            self._left -= 1
        self._log.append((self.name, task.ids[0]))
        self.memory += 100
        return Decoded([task.ids[0]] * 3, 0.5, 2.0, 2)

    def reset(self) -> None:
        self._log.append((self.name, "reset"))

    def close(self) -> None:
        self._log.append((self.name, "closed"))


class Silent:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.counts: list[tuple[int, int, int]] = []

    def say(self, message: str) -> None:
        self.messages.append(message)

    def ran(self, runs: Sequence[Run], done: int, total: int) -> None:
        self.counts.append((len(runs), done, total))


def plan(contestants: Sequence[Contestant] = (PLAIN, AUTO, PEER), prompts: int = 6, **changes: Any) -> Plan:
    """Prompts of two categories; the id of prompt ``n`` decodes from ``[n]``, the warm-up from ``[99]``."""
    made = [Prompt(str(n), "ab"[n % 2], f"prompt {n}") for n in range(prompts)]
    values: dict[str, Any] = {
        "contestants": contestants,
        "prompts": made,
        "ids": {"": [99]} | {prompt.id: [int(prompt.id)] for prompt in made},
        "decode": lambda ids: " ".join(map(str, ids)),
        "repeats": 1,
        "seed": 0,
        "max_new_tokens": 3,
        "temperature": 0.0,
        "eos": [7],
    }
    return Plan(**values | changes)


def run(contestant: str, prompt: str, tokens: int, seconds: float, **values: Any) -> Run:
    """A run of ``tokens`` timed tokens in ``seconds``."""
    defaults: dict[str, Any] = {
        "category": "a",
        "repeat": 0,
        "token_ids": list(range(tokens + 1)),
        "text": "text",
        "first_seconds": 0.5,
    }
    return Run(contestant=contestant, prompt=prompt, timed_tokens=tokens, seconds=seconds, **defaults | values)


def bench(runs: list[Run], **values: Any) -> Bench:
    """A result that holds these runs."""
    names = list(dict.fromkeys(one.contestant for one in runs))
    machine = {"cpu": "some CPU", "physical_cores": 2, "load_average_1min": 0.1}
    defaults: dict[str, Any] = {
        "about": {"date": "2026-01-02T03:04:05+00:00", "machine": machine, "versions": {}},
        "command": "unspool bench",
        "model": "tiny",
        "suite": "mixed",
        "settings": {name: {"weights": "int8"} for name in names},
        "options": {"limit": None, "repeats": 1, "seed": 0, "max_new_tokens": 8, "temperature": 0.0},
        "left_out": {},
        "curve": None,
        "memory": {},
        "verdicts": {},
    }
    return Bench(runs=runs, **defaults | values)
