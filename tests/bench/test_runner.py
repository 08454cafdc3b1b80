"""The order of the runs, and what happens when a contestant fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bench.fakes import AUTO, PEER, PLAIN, Fake, Silent, plan
from unspool.bench.contestants import Contestant
from unspool.bench.process import ContestantError
from unspool.bench.runner import measure, schedule
from unspool.errors import UnspoolError
from unspool.suites.prompts import Prompt

Start = Callable[[Contestant], Fake]


def starter(log: list[tuple[str, Any]], **failing: dict[str, Any]) -> Start:
    return lambda contestant: Fake(contestant, log, **failing.get(contestant.name, {}))


def test_every_prompt_goes_to_all_before_the_next_prompt() -> None:
    log: list[tuple[str, Any]] = []
    made = plan()
    measured = measure(made, starter(log), Silent())
    runs = [(run.contestant, run.prompt) for run in measured.runs]
    groups = [runs[at : at + 3] for at in range(0, len(runs), 3)]
    assert len(groups) == 6
    for group in groups:
        assert {name for name, _ in group} == {"plain", "auto", "llama_cpp"} and len({id for _, id in group}) == 1
    # Rounds of one a category, all prompts once, and contestants in more than one order.
    assert [{int(group[0][1]) % 2 for group in groups[at : at + 2]} for at in (0, 2, 4)] == [{0, 1}] * 3
    assert {group[0][1] for group in groups} == set("012345")
    assert len({tuple(name for name, _ in group) for group in groups}) > 1
    # What was told to the contestants is what the runs say, behind the warm-up.
    decoded = [(name, str(what)) for name, what in log if isinstance(what, int)]
    assert decoded[:3] == [("plain", "99"), ("auto", "99"), ("llama_cpp", "99")] and decoded[3:] == runs
    assert [entry for entry in log if entry[1] == "closed"] == [
        (name, "closed") for name in ("plain", "auto", "llama_cpp")
    ]


def test_the_order_depends_on_the_seed_alone() -> None:
    orders = [list(schedule(plan(prompts=8, repeats=2, seed=seed))) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    first, second = orders[0][:24], orders[0][24:]
    assert [turn[1:] for turn in first] != [turn[1:] for turn in second], "a repeat has an order of its own"
    assert sorted((p.id, name) for _, p, name in first) == sorted((p.id, name) for _, p, name in second)


def test_what_was_learned_is_forgotten_at_the_start_of_a_repeat_only() -> None:
    log: list[tuple[str, Any]] = []
    measure(plan(repeats=2), starter(log), Silent())
    auto = [what for name, what in log if name == "auto"]
    assert [at for at, what in enumerate(auto) if what == "reset"] == [1, 8]
    assert auto[0] == 99, "the warm-up comes before, and is forgotten"


def test_runs_hold_what_was_decoded() -> None:
    kept: list[tuple[str, int]] = []
    prompts = [Prompt("5", "a", "five", "number", "5"), Prompt("6", "a", "six", "number", "7")]
    made = plan([PLAIN], prompts=0)
    made = type(made)(**{**vars(made), "prompts": prompts, "ids": {"": [99], "5": [5], "6": [6]}})
    progress = Silent()
    runs = measure(made, starter([]), progress, keep=lambda run, memory: kept.append((run.prompt, memory))).runs
    by_prompt = {run.prompt: run for run in runs}
    five = by_prompt["5"]
    assert (five.token_ids, five.text, five.quality) == ([5, 5, 5], "5 5 5", 1.0)
    assert (five.first_seconds, five.seconds, five.timed_tokens, five.passes) == (0.5, 2.0, 2, None)
    assert by_prompt["6"].quality == 0.0
    assert sorted(memory for _, memory in kept) == [200, 300]
    assert progress.counts == [(1, 1, 2), (2, 2, 2)]


def test_a_peer_that_does_not_start_is_left_out_and_says_why() -> None:
    def start(contestant: Contestant) -> Fake:
        if contestant is PEER:
            raise ContestantError("not installed; pip install it")
        return Fake(contestant, [])

    measured = measure(plan(), start, Silent())
    assert measured.left_out == {"llama_cpp": "not installed; pip install it"}
    assert {run.contestant for run in measured.runs} == {"plain", "auto"} == set(measured.settings)


def test_a_peer_that_fails_midway_loses_all_its_runs() -> None:
    log: list[tuple[str, Any]] = []
    measured = measure(plan(), starter(log, llama_cpp={"stop_after": 3}), Silent())
    assert measured.left_out == {"llama_cpp": "out of luck"}
    assert len(measured.runs) == 12 and {run.contestant for run in measured.runs} == {"plain", "auto"}
    assert "llama_cpp" not in measured.settings and log.count(("llama_cpp", "closed")) == 1


def test_a_method_that_fails_ends_the_benchmark() -> None:
    log: list[tuple[str, Any]] = []
    with pytest.raises(UnspoolError, match="auto: out of luck"):
        measure(plan([PLAIN, AUTO]), starter(log, auto={"stop_after": 2}), Silent())
    assert log[-2:] == [("plain", "closed"), ("auto", "closed")]


def test_ctrl_c_stops_all_contestants() -> None:
    log: list[tuple[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        measure(plan(), starter(log, plain={"stop_after": 2, "error": KeyboardInterrupt}), Silent())
    assert {name for name, what in log if what == "closed"} == {"plain", "auto", "llama_cpp"}
