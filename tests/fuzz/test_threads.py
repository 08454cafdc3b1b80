"""Threads that share a model get the texts that they would get alone; so do streams that are read by turns."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz import tables
from tests.fuzz.tables import Table
from unspool.decoding.model import Model
from unspool.decoding.results import Stream

PROMPTS = ("ab=1, x(ab=1, x(ab", "co(1)ab co(1)ab")
PAIRS = (("plain", "token_recycling"), ("auto", "stand"), ("aded", "suffix"), ("pearl", "draft_model"), ("rasd", "rsd"))
SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 7, "top_k": 12, "repetition_penalty": 1.2},
)


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def model() -> Model:
    target = Table.drawn(3, order=2, steep=2.0, ends=0.05, zeros=0.0, max_length=512, section=16, block_max=True)
    return tables.model(target, target.near(0.5, 4, 512, 0))


def arguments(setting: dict[str, Any], method: str) -> dict[str, Any]:
    return {"method": method, "max_new_tokens": 40, "chat": False, **setting}


def expected(setting: dict[str, Any]) -> list[list[int]]:
    return [model().generate(prompt, **arguments(setting, "plain")).token_ids for prompt in PROMPTS]


def together(shared: Model, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What each thread got: token ids or what was raised."""
    found: list[Any] = [None] * len(calls)
    ready = threading.Barrier(len(calls))

    def work(number: int) -> None:
        prompt, given = calls[number]
        try:
            ready.wait()
            found[number] = shared.generate(prompt, **given).token_ids
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_threads_of_one_model(pair: tuple[str, str], setting: dict[str, Any]) -> None:
    shared, wanted = model(), expected(setting)
    for _ in range(3):
        calls = [(prompt, arguments(setting, method)) for prompt, method in zip(PROMPTS, pair, strict=True)]
        assert together(shared, calls) == wanted


def test_two_threads_share_a_memory_under_lossless() -> None:
    setting = {"temperature": 1.0, "seed": 7}
    wanted = expected(setting)
    for method in ("token_recycling", "aded", "auto"):
        shared = model()
        call = {**arguments(setting, method), "acceptance": "lossless"}
        for _ in range(3):
            assert together(shared, [(prompt, call) for prompt in PROMPTS]) == wanted


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_streams_by_turns(pair: tuple[str, str]) -> None:
    shared, wanted = model(), expected(SETTINGS[1])
    streams = [
        shared.stream(prompt, **arguments(SETTINGS[1], method)) for prompt, method in zip(PROMPTS, pair, strict=True)
    ]
    turns = [iter(stream) for stream in streams]
    while turns:
        turns = [turn for turn in turns if next(turn, None) is not None]
    assert [stream.result.token_ids for stream in streams] == wanted


def test_a_request_beside_a_paused_stream() -> None:
    shared, wanted = model(), expected(SETTINGS[0])
    stream: Stream = shared.stream(PROMPTS[0], **arguments(SETTINGS[0], "pearl"))
    pieces = iter(stream)
    next(pieces)
    assert shared.generate(PROMPTS[1], **arguments(SETTINGS[0], "pearl")).token_ids == wanted[1]
    assert list(pieces) and stream.result.token_ids == wanted[0]
