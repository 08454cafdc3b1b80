"""What a contestant's process measures, on the toy model, and the process itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from unspool.backends.toy import ToyModel
from unspool.bench.contestants import Contestant
from unspool.bench.engines import Clock, Settings, Task, Unspool, by_depth
from unspool.bench.process import ContestantError, Worker
from unspool.bench.worker import Server
from unspool.decoding.model import Model
from unspool.engine.trace import StepEvent

PROMPT = [0, 1, 2, 3, 0, 1, 2, 3]


def engine(method: str, **toy: Any) -> Unspool:
    made = Unspool.__new__(Unspool)
    no_tokenizer: Any = None
    made.model = Model("toy", "toy", ToyModel.random(5, order=1, **toy), no_tokenizer, ())
    made.method, made.settings = method, {}
    return made


def task(**changes: Any) -> Task:
    values: dict[str, Any] = {"ids": PROMPT, "max_new_tokens": 40, "temperature": 0.0, "seed": 3, "eos": []}
    return Task(**values | changes)


def test_a_method_gives_plain_text_with_counts_that_add_up() -> None:
    plain, fast = engine("plain").decode(task()), engine("prompt_lookup").decode(task())
    assert plain.token_ids == fast.token_ids and len(fast.token_ids) == 40
    assert plain.passes == 40 and plain.by_depth == [] and plain.by_source == {"model": 40}
    assert plain.timed_tokens == 39, "all but the first emission"
    assert fast.passes is not None and fast.passes < 40
    drafted = sum(accepted for accepted, _ in fast.by_depth)
    assert drafted == fast.by_source["prompt_lookup"] and sum(fast.by_source.values()) == 40
    assert all(accepted <= proposed for accepted, proposed in fast.by_depth)
    assert fast.first_seconds > 0 and fast.seconds > 0
    assert fast.decode_seconds is not None and fast.scoring_seconds is not None
    assert 0 < fast.scoring_seconds < fast.decode_seconds


def test_the_end_of_the_text_and_the_seed_are_respected() -> None:
    greedy = engine("plain").decode(task()).token_ids
    ended = engine("plain").decode(task(eos=[greedy[2]])).token_ids
    assert ended == greedy[: greedy.index(greedy[2]) + 1]
    sampled = [engine("prompt_lookup").decode(task(temperature=1.0, seed=seed)).token_ids for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled[0] == engine("plain").decode(task(temperature=1.0, seed=1)).token_ids


def test_what_is_learned_stays_until_the_reset() -> None:
    made = engine("token_recycling")
    passes = [made.decode(task()).passes for _ in range(2)]
    assert passes[1] < passes[0]  # type: ignore[operator]
    made.reset()
    assert made.decode(task()).passes == passes[0]


def test_acceptance_by_depth() -> None:
    def step(parents: tuple[int, ...], accepted: tuple[int, ...], emitted: int) -> StepEvent:
        n = len(parents)
        return StepEvent(
            0, 0, 0, (1,) * n, parents, ("root",) + ("x",) * (n - 1), accepted, (1,) * emitted, (), None, 0, 0, 0, 0
        )

    # Root, two children, a child of the first child: both levels of the first branch are accepted.
    tree = step((-1, 0, 0, 1), (0, 1, 3), 3)
    assert by_depth([tree]) == [[1, 2], [1, 1]]
    # The text ended with the first accepted draft: the second one was not emitted.
    assert by_depth([tree, step((-1, 0, 1, 2), (0, 1, 2), 1)]) == [[2, 3], [1, 2], [0, 1]]
    assert by_depth([step((-1,), (0,), 1)]) == []


def test_the_clock_counts_from_the_first_emission(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 11.5, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock()
    for tokens in ([1, 2], [3], [4, 5, 6]):
        clock.emit(tokens)
    made = clock.decoded()
    assert (made.token_ids, made.first_seconds, made.seconds, made.timed_tokens) == ([1, 2, 3, 4, 5, 6], 1.0, 2.0, 4)
    times = iter([10.0, 12.0])
    made = Clock().decoded()
    assert (made.first_seconds, made.seconds, made.timed_tokens) == (2.0, 0.0, 0), "nothing was emitted"


def test_the_server_judges_differences() -> None:
    server = Server()
    server._engine = engine("plain")
    plain = server.engine.decode(task()).token_ids
    wrong = [*plain[:5], (plain[5] + 1) % 4, *plain[6:]]
    asked = {"temperature": 0.0, "seed": 3, "max_new_tokens": 40, "eos": []}
    found = server.judge([{"ids": PROMPT, "output": plain}], {"good": [plain], "bad": [wrong]}, **asked)
    assert found["good"] == [] and found["bad"][0] == "fault"


def test_peak_memory_never_falls() -> None:
    """In a process of its own, whose peak no other test has raised."""
    program = (
        "from unspool.bench.worker import peak_bytes\n"
        "before = peak_bytes()\n"
        "data = bytearray(64 << 20)\n"
        "data[:: 1 << 12] = b'x' * len(data[:: 1 << 12])\n"
        "during = peak_bytes()\n"
        "del data\n"
        "print(before, during, peak_bytes())\n"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    before, during, after = map(int, output.split())
    assert during >= before + (32 << 20)
    # The kernel counts in batches, so the figure may step back by a few pages.
    assert after >= during - (1 << 20)


def test_a_process_that_cannot_load_says_why_and_is_gone() -> None:
    settings = Settings("smolm2-135m", 1, 100)
    with pytest.raises(ContestantError, match="did you mean 'smollm2-135m'"):
        Worker(Contestant("plain", "plain", "int8"), settings)


def test_a_missing_peer_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.bench.contestants.find_spec", lambda name: None)
    with pytest.raises(ContestantError, match="not installed"):
        Worker(Contestant("llama_cpp"), Settings("x", 1, 1))


def test_a_process_that_dies_leaves_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.bench.process.sys.executable", "/bin/sh")
    with pytest.raises(ContestantError, match="its process ended with code"):
        Worker(Contestant("plain", "plain", "int8"), Settings("x", 1, 1))
