"""Identical runs, ties and faults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.fakes import AUTO, INT4, PEER, PLAIN, Silent, plan, run
from unspool.bench.contestants import Contestant
from unspool.bench.process import ContestantError
from unspool.bench.verdicts import judge
from unspool.errors import UnspoolError

SUFFIX = Contestant("suffix", "suffix", "int8")
MADE = plan([PLAIN, AUTO, SUFFIX, INT4, PEER], prompts=2)


class Court:
    """Answers what it is told to and keeps what it was asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}
        self.closed = False

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert what == "judge"
        self.asked = arguments
        if not self.answer:
            raise ContestantError("out of memory")
        return self.answer

    def close(self) -> None:
        self.closed = True


def runs(auto: list[int]) -> list[Any]:
    # In other orders by contestant, as runs are made.
    return [
        run("auto", "1", 2, 1.0, token_ids=auto),
        run("plain", "0", 2, 1.0, token_ids=[1, 2, 3]),
        run("plain@int4", "0", 2, 1.0, token_ids=[9]),
        run("llama_cpp", "0", 2, 1.0, token_ids=[8]),
        run("suffix", "0", 2, 1.0, token_ids=[1, 2, 3]),
        run("auto", "0", 2, 1.0, token_ids=[1, 2, 3]),
        run("plain", "1", 2, 1.0, token_ids=[4, 5]),
        run("suffix", "1", 2, 1.0, token_ids=[4, 5]),
        run("plain@int4", "1", 2, 1.0, token_ids=[9]),
        run("llama_cpp", "1", 2, 1.0, token_ids=[8]),
    ]


def test_equal_outputs_need_no_judge() -> None:
    def nobody() -> Court:
        raise AssertionError("opened")

    same = {"identical": 2, "ties": 0, "faults": 0}
    assert judge(MADE, runs([4, 5]), nobody, Silent()) == {"auto": same, "suffix": same}


def test_differences_are_judged_and_counted() -> None:
    court = Court({"auto": ["tie", "tie", "fault"]})
    found = judge(MADE, runs([4, 6]), lambda: court, Silent())
    assert found["auto"] == {"identical": 1, "ties": 2, "faults": 1}
    assert found["suffix"] == {"identical": 2, "ties": 0, "faults": 0}
    assert court.closed
    assert court.asked["cases"] == [{"ids": [0], "output": [1, 2, 3]}, {"ids": [1], "output": [4, 5]}]
    assert court.asked["runs"] == {"auto": [[1, 2, 3], [4, 6]]}
    assert (court.asked["eos"], court.asked["max_new_tokens"], court.asked["seed"]) == ([7], 3, 0)


def test_a_judge_that_fails_is_an_error() -> None:
    court = Court({})
    with pytest.raises(UnspoolError, match="could not be judged: out of memory"):
        judge(MADE, runs([4, 6]), lambda: court, Silent())
    assert court.closed
