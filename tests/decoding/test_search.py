"""The public entry: what it refuses, how a text is cut, and that it gives greedy decoding's text where it should."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.specs import spec
from unspool.backends.toy import ToyModel, ToySession
from unspool.conformance.small_model import CountedModel, CountedSession, load
from unspool.decoding.model import Model
from unspool.decoding.search import search
from unspool.engine.taps import Taps
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods.search._function_body import FunctionBody
from unspool.methods.search.plan.reward import PublicTests
from unspool.sandbox import run as sandbox

PIECES = ["    x\n", "\n", "y", "  ", "<end>"]


class Pieces:
    has_chat_template = False

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [int(letter) for letter in text.strip()]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(PIECES[i] for i in ids if i != 4)

    def text(self, ids: Sequence[int], context: Sequence[int] = ()) -> str:
        return self.decode(ids)

    def context(self, prompt: Sequence[int], exact: bool = False) -> list[int]:
        return []


def model(seed: int = 0, **options: Any) -> Model:
    toy = ToyModel.random(seed=seed, vocab_size=5, order=2, **options)
    return Model("toy", "key", toy, Pieces(), [4])  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("method", "options", "reward"),
    [
        ("adadec", {"threshold": math.inf}, None),
        ("beam", {"num_beams": 1}, None),
        ("plan", {"k": 1, "max_completions": 1}, lambda text: 0.0),
    ],
)
def test_the_text_of_greedy_decoding(seed: int, method: str, options: dict[str, Any], reward: Any) -> None:
    plain = model(seed).generate("010", method="plain", max_new_tokens=12, logprobs=True)
    found = search(model(seed), "010", method=spec(method, options), reward=reward, max_new_tokens=12)
    assert (found.token_ids, found.text, found.finish_reason) == (plain.token_ids, plain.text, plain.finish_reason)
    assert found.logprob == pytest.approx(sum(plain.logprobs))  # type: ignore[arg-type]
    assert found.prompt_token_ids == [0, 1, 0]
    assert (
        found.statistics.tokens == found.statistics.evaluated_tokens == found.statistics.passes == len(plain.token_ids)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_what_guarded_the_programs_is_told() -> None:
    tests = PublicTests('def f():\n    """\n    >>> f()\n    1\n    """\n')
    options = {"max_completions": 1}
    found = search(model(), "010", method=spec("plan", options), reward=tests, max_new_tokens=4)
    assert found.sandbox == sandbox.guards()
    other = search(model(), "010", method=spec("plan", options), reward=lambda text: 0.0, max_new_tokens=4)
    assert other.sandbox is None


def test_rewards_are_told_the_text_and_candidates_are_ranked() -> None:
    texts: list[str] = []

    def reward(text: str) -> float:
        texts.append(text)
        return float("y" in text)

    found = search(model(1), "010", method="plan:max_completions=15", reward=reward, max_new_tokens=6)
    assert sorted(candidate.text for candidate in found.candidates) == sorted(texts)
    assert [candidate.score for candidate in found.candidates] == sorted((float("y" in t) for t in texts), reverse=True)


def test_a_function_ends_its_text() -> None:
    for seed in range(6):
        whole = search(model(seed), "010\n", method="beam:num_beams=1", max_new_tokens=30)
        found = search(
            model(seed),
            "010\n",
            method="beam:num_beams=1",
            max_new_tokens=30,
            stop_rule="function_body",
        )
        assert whole.token_ids[: len(found.token_ids)] == found.token_ids
        if found.finish_reason == "stopping_criteria":
            rule = FunctionBody(Pieces().decode, "010\n")  # type: ignore[arg-type]
            assert rule(tuple(found.token_ids)) and not rule(tuple(found.token_ids[:-1]))
            assert found.text == rule.cut(whole.text)


@pytest.mark.parametrize(
    ("prompt", "text", "body"),
    [
        ("def f():\n", "    x\n    y\nz", "    x\n    y\n"),
        ("def f():\n", "    x\n\n\n    y\n", None),
        ("def f():\n", "    x\n\n\n\n\n    y\n", "    x\n"),
        ("def f():\n", "x", ""),
        ("def f():", " return 1\ny", " return 1\n"),
        ("def f():", " return 1", None),
        ("def f():\n    ", "return 1", None),
        ("def f():\n    ", "x\n    y\n# no", "x\n    y\n"),
    ],
)
def test_where_a_function_ends(prompt: str, text: str, body: str | None) -> None:
    class Text:
        def decode(self, ids: Sequence[int]) -> str:
            return text

    rule = FunctionBody(Text().decode, prompt)  # type: ignore[arg-type]
    assert rule((0,)) == (body is not None)
    assert rule.cut(text) == (text if body is None else body)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "beams"}, "did you mean 'beam'"),
        ({"method": "beam:num_beam=2"}, "did you mean 'num_beams'"),
        ({"method": "beam", "reward": len}, "does not take a reward"),
        ({"method": "plan"}, "needs a reward"),
        ({"method": "adadec"}, "threshold"),
        ({"method": "beam", "max_new_tokens": 0}, "max_new_tokens"),
        ({"method": "beam", "max_new_tokens": 600}, "context"),
        ({"method": "beam", "stop_rule": "body"}, "stop_rule"),
        ({"method": "beam", "stop_rule": "function_body", "prompt": [0, 1]}, "as text"),
        ({"method": "beam", "prompt": ""}, "empty"),
        ({"method": "beam", "prompt": [9]}, "vocabulary"),
    ],
)
def test_what_is_refused_before_any_work(fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToySession, "score", lambda *_: pytest.fail("scored"))
    fields = dict(fields)
    with pytest.raises((UnspoolError, UnknownNameError), match=message):
        search(model(), fields.pop("prompt", "01"), **fields)


def test_passes_that_bring_a_branch_up_to_its_text_are_counted() -> None:
    class Narrow(CountedSession):
        """Takes four tokens at most, and none across a multiple of four, so that branches lag behind."""

        @property
        def max_depth(self) -> int:
            return 4 - self.length % 4

    class Counted(CountedModel):
        calls = 0

        def open(self, taps: Taps | None = None) -> Narrow:
            return Narrow(self)

        def count(self, nodes: int, wanted: bool) -> None:
            self.calls += not wanted
            super().count(nodes, wanted)

    counted = Counted(3)
    found = load(0, counted).search("a=(1,)\na.", method="adadec:threshold=1.0", max_new_tokens=16)
    for_prompt = math.ceil((len(found.prompt_token_ids) - 1) / 4)
    assert counted.calls > for_prompt
    assert found.statistics.passes == counted.passes + counted.calls - for_prompt
