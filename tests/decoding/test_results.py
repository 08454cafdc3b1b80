"""What a result says: its seed, its end, what was read from its text, and the lead of each token."""

from __future__ import annotations

import gc
import re
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, field_validator

import unspool
from unspool import Model, UnspoolError
from unspool.backends.toy import ToyModel
from unspool.conformance.small_model import EOS, load
from unspool.conformance.stubs import EmptyDrafter, OracleDrafter, RandomDrafter
from unspool.decoding.parsing import read
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Decision, Ending
from unspool.engine.noise import gumbel, row_seed
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, StepEvent
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.constraints.grammar import GrammarConstraint, GrammarOptions
from unspool.methods.shaping._built_in import build

P = "ab=1, x(ab=1"
OPTIONS: dict[str, Any] = {"chat": False, "max_new_tokens": 10, "method": "plain"}


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


# Seeds of rows


@pytest.mark.parametrize("acceptance", [None, "lossless"])
@pytest.mark.parametrize("method", ["plain", "suffix", "prompt_lookup"])
@pytest.mark.parametrize("batch", [None, "eqspec"])
def test_samples_of_one_prompt_differ_and_each_is_the_row_alone(
    model: Model, batch: str | None, method: str, acceptance: str | None
) -> None:
    options = OPTIONS | {"method": method, "acceptance": acceptance, "temperature": 1.0}
    rows = model.generate([P] * 4, batch=batch, seed=7, memories={}, **options)
    assert rows[0].seed == 7 and len({row.seed for row in rows}) == 4
    assert len({tuple(row.token_ids) for row in rows}) == 4
    for row in rows:
        alone = model.generate(P, seed=row.seed, memories={}, **options)
        assert (alone.token_ids, alone.seed) == (row.token_ids, row.seed)
    assert [event.seed for row in rows for event in row.trace if event.kind == "start"] == [row.seed for row in rows]


def test_a_list_gives_each_row_its_seed(model: Model) -> None:
    options = OPTIONS | {"temperature": 1.0}
    rows = model.generate([P] * 3, seed=[5, 6, 5], **options)
    assert [row.seed for row in rows] == [5, 6, 5]
    assert rows[0].token_ids == rows[2].token_ids == model.generate(P, seed=5, **options).token_ids
    assert rows[1].token_ids == model.generate(P, seed=6, **options).token_ids != rows[0].token_ids
    with pytest.raises(UnspoolError, match="seed has 2 seeds for 3 prompts"):
        model.generate([P] * 3, seed=[5, 6], **options)


def test_at_temperature_0_rows_of_one_prompt_are_alike(model: Model) -> None:
    rows = model.generate([P] * 3, seed=9, **OPTIONS)
    assert len({tuple(row.token_ids) for row in rows}) == 1


def test_seeds_of_rows_are_the_same_for_ever_and_meet_nowhere() -> None:
    assert [row_seed(7, row) for row in range(3)] == [7, 6635463128224577688, 18279110831140952437]
    found = [row_seed(seed, row) for seed in (*range(40), 2**64 - 1) for row in range(50)]
    assert len(set(found)) == len(found) and all(0 <= seed < 2**64 for seed in found)


# Ends


class Spelled:
    """Allows one text and then an end token; may say that nothing but that can follow."""

    def __init__(self, text: Sequence[int], vocab_size: int, forced: bool) -> None:
        self.rest, self.size, self._forced = list(text), vocab_size, forced

    def allowed(self, path: Sequence[int]) -> np.ndarray | None:
        if list(path) != self.rest[: len(path)]:
            return None
        mask = np.zeros(self.size, np.bool_)
        mask[self.rest[len(path)] if len(path) < len(self.rest) else EOS] = True
        return mask

    def forced(self) -> Sequence[int]:
        return self.rest if self._forced else ()

    def advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if self.rest:
                assert token == self.rest.pop(0)
            else:
                assert token == EOS


class SpelledOut(Spelled):
    def must_end(self) -> bool:
        return not self.rest


TEXT = [3, 5, 3, 4]


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("rule", [ExactMatch, Lossless])
@pytest.mark.parametrize("limit", [4, 9])
def test_a_complete_text_asks_no_pass_for_its_end_token(limit: int, rule: type, forced: bool) -> None:
    model = ToyModel.random(vocab_size=6, order=2, seed=3, eos_token_id=EOS)
    options = GenerationOptions(
        max_new_tokens=limit, temperature=1.0 if rule is Lossless else 0.0, logprobs=True, alternatives=2
    )
    drafters = (EmptyDrafter, lambda: OracleDrafter([1, 2, *TEXT, EOS, 1]), lambda: RandomDrafter(6, seed=2))
    for drafter in drafters:
        spelled = SpelledOut(TEXT, 6, forced)
        assert isinstance(spelled, Ending) and not isinstance(Spelled(TEXT, 6, forced), Ending)
        request = Request(
            [1, 2], drafter(), rule(), options, build(options), frozenset({EOS}), constraint=spelled
        )  # fmt: skip
        events = list(decode(model, [request]))
        steps = [event for event in events if isinstance(event, StepEvent)]
        assert [token for step in steps for token in step.emitted] == TEXT
        assert isinstance(events[-1], EndEvent) and events[-1].reason == "stop"
        for step in steps:
            parts = step.margins, step.logprobs, step.alternatives, step.ranks
            assert {len(part or ()) for part in parts} == {len(step.emitted)}
        assert sum(len(step.logprobs or ()) for step in steps) == 4
    # A draft that ends with the end token too: one pass, and the end token is not in the text.
    request = Request(
        [1, 2], OracleDrafter([1, 2, *TEXT, EOS]), rule(), options, build(options), frozenset({EOS}),
        constraint=SpelledOut(TEXT, 6, False),
    )  # fmt: skip
    assert sum(isinstance(event, StepEvent) for event in decode(model, [request])) == 1


def test_a_text_that_may_go_on_still_needs_its_end_token() -> None:
    model = ToyModel.random(vocab_size=6, order=2, seed=3, eos_token_id=EOS)
    options = GenerationOptions(max_new_tokens=9)
    request = Request([1, 2], EmptyDrafter(), ExactMatch(), options, eos=frozenset({EOS}))
    (events,) = (list(decode(model, [Request(**(vars(request) | {"constraint": Spelled(TEXT, 6, False)}))])),)
    assert [token for e in events if isinstance(e, StepEvent) for token in e.emitted] == [*TEXT, EOS]


def test_a_stop_string_at_the_end_of_a_complete_text_is_the_reason() -> None:
    model = ToyModel.random(vocab_size=6, order=2, seed=3, eos_token_id=EOS)
    seen: list[int] = []

    def stop(token: int) -> Any:
        seen.append(token)
        return "stop_string" if len(seen) == 4 else None

    options = GenerationOptions(max_new_tokens=9)
    request = Request(
        [1, 2], OracleDrafter([1, 2, *TEXT, EOS]), ExactMatch(), options, eos=frozenset({EOS}),
        constraint=SpelledOut(TEXT, 6, False), stopping=stop,
    )  # fmt: skip
    assert list(decode(model, [request]))[-1] == EndEvent(0, "stop_string")


def test_a_choice_of_one_token_costs_one_pass(model: Model) -> None:
    for method in ("plain", "suffix"):
        result = model.generate(P, chat=False, max_new_tokens=1, choices=["co"], method=method, logprobs=True)
        assert (result.text, result.finish_reason, result.statistics.passes) == ("co", "stop", 1)
        assert len(result.token_ids) == 1 and result.logprobs == [0.0]


# What is read from a text


class Dozens(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def by_the_dozen(cls, value: int) -> int:
        if value % 12:
            raise ValueError("sold by\nthe dozen")
        return value


@pytest.mark.parametrize(
    ("options", "text", "parsed", "reason"),
    [
        ({"json_schema": Dozens}, '{"n": 24}', Dozens(n=24), None),
        ({"json_schema": Dozens}, '{"n": 7}', None, ".*ValidationError: 1 validation error .* sold by the dozen"),
        ({"json_schema": {}}, '{"a": [1]}', {"a": [1]}, None),
        ({"json_schema": {}}, '{"a": ', None, ".*JSONDecodeError: "),
        ({"json_schema": {}}, "1e400", None, ".*1e400 is too large"),
        ({"json_schema": {}}, "[NaN]", None, ".*NaN is not a JSON number"),
        ({"regex": ".*"}, "ab", "ab", None),
    ],
)
def test_a_text_that_cannot_be_read_is_a_reason(options: dict[str, Any], text: str, parsed: Any, reason: Any) -> None:
    found, error = read(GrammarOptions(**options).parse, text)
    assert found == parsed
    assert error is None if reason is None else "\n" not in error and re.match(reason, error)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(self: Any, text: str) -> Any:
        if "b" in text:
            raise KeyError(f"no\n{text}")
        return text

    monkeypatch.setattr(GrammarConstraint, "parse", parse)


def test_a_result_is_kept_where_its_text_cannot_be_read(model: Model, unreadable: None) -> None:
    options = OPTIONS | {"choices": ["ab", "co"], "temperature": 1.0}
    results = model.generate([P] * 12, seed=list(range(12)), **options)
    assert {result.text for result in results} == {"ab", "co"}
    for result in results:
        assert result.finish_reason == "stop"
        fine = result.text == "co"
        assert result.parsed == ("co" if fine else None)
        assert result.parse_error == (None if fine else "KeyError: 'no\\nab'")
    stream = model.stream(P, **(options | {"choices": ["ab"]}))
    assert "".join(stream) == stream.result.text == "ab"
    assert stream.result.parse_error and stream.result.parsed is None


def test_a_text_that_was_cut_is_not_read(model: Model) -> None:
    result = model.generate(P, **(OPTIONS | {"regex": "a{30}", "max_new_tokens": 3}))
    assert (result.finish_reason, result.parsed, result.parse_error) == ("length", None, None)


def test_a_listener_that_fails_ends_the_run_and_leaves_the_model_as_it_was(model: Model) -> None:
    before = model.generate(P, **OPTIONS).token_ids

    def fail(event: Any) -> None:
        if event.kind == "step":
            raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        model.generate([P, P], on_event=fail, **OPTIONS)
    assert model.generate(P, **OPTIONS).token_ids == before


# Margins


class Contrary:
    """Emits another token than plain decoding takes, every time."""

    uses_draft_probs = False

    def decide(self, target: Any, rng: Any) -> Decision:
        return Decision((0,), (target.choose(0) + 1) % 6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rule", [ExactMatch, Lossless, Contrary])
def test_a_margin_is_the_lead_of_the_token_that_was_emitted(rule: type, temperature: float) -> None:
    model = ToyModel.random(vocab_size=6, order=2, seed=4)
    options = GenerationOptions(max_new_tokens=60, temperature=temperature, seed=5)
    tokens, behind = [1, 2], 0
    for event in decode(model, [Request([1, 2], RandomDrafter(6, seed=3), rule(), options, build(options))]):
        if not isinstance(event, StepEvent):
            continue
        for token, margin in zip(event.emitted, event.margins, strict=True):
            scores = np.log(model.probabilities(tokens)) + (temperature and gumbel(5, len(tokens), 6))
            assert margin == pytest.approx(float(scores[token] - np.delete(scores, token).max()))
            behind += margin < 0
            tokens.append(token)
    assert behind == {ExactMatch: 0, Contrary: 60}.get(rule, behind)


# Memory


def test_memory_stays_flat_over_200_calls(model: Model) -> None:
    def call(i: int) -> None:
        model.generate(P, **(OPTIONS | {"method": "auto", "seed": i, "temperature": 1.0, "max_new_tokens": 2}))
        with pytest.raises(UnspoolError):
            model.generate(P, seed="a")

    for i in range(25):
        call(i)
    gc.collect()
    tracemalloc.start()
    try:
        first = tracemalloc.get_traced_memory()[0]
        for i in range(200):
            call(i)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - first < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.nightly
@pytest.mark.model
def test_memory_of_a_real_model_stays_flat_over_200_calls() -> None:
    import psutil

    real = unspool.load("smollm2-135m", threads=1)
    me = psutil.Process()
    for i in range(220):
        real.generate("Hi", method="suffix", max_new_tokens=3, seed=i, temperature=1.0, json_schema={"type": "integer"})
        if i == 20:
            gc.collect()
            first = me.memory_info().rss
    assert me.memory_info().rss - first < 60e6
