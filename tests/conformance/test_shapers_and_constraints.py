"""Every registered shaper and constraint, through the public interface, under every drafter without a draft model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.conformance.cases import case, rows, shared_answers
from tests.conformance.small_model import EOS, CountedModel, load
from tests.specs import spec
from unspool import methods
from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.engine.contracts import Shaper
from unspool.engine.method import CONSTRAINT, DRAFTER, SHAPER
from unspool.errors import UnknownNameError
from unspool.methods import Method

DRAFTERS = [name for name, row in methods.methods().items() if row.kind is DRAFTER and not row.needs.assistant]
SETTINGS: dict[str, dict[str, Any]] = {"greedy": {}, "same noise": {"temperature": 0.8, "seed": 4}}
LENGTH = 24

parametrize_rows = pytest.mark.parametrize("row", rows(SHAPER, CONSTRAINT))
parametrize_settings = pytest.mark.parametrize("setting", SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def quick_analyser() -> Iterator[None]:
    with shared_answers():
        yield


def named(row: Method, options: Any) -> dict[str, Any]:
    if row.kind is SHAPER:
        return {"shapers": [spec(row.name, options)]}
    return {"constraint": spec(row.name, options)}


def generate(model: Model, row: Method, setting: str, which: int = 0, method: str = "plain") -> Result:
    given, request = case(row), named(row, case(row).options) | SETTINGS[setting]
    found: Result = model.generate(given.prompts[which], method=method, max_new_tokens=LENGTH, logprobs=True, **request)
    return found


def seen(result: Result) -> tuple[list[int], str, str]:
    return result.token_ids, result.text, result.finish_reason


@parametrize_settings
@parametrize_rows
def test_it_does_something(row: Method, setting: str) -> None:
    """Otherwise the equalities below would say nothing."""
    free = [load().generate(p, method="plain", max_new_tokens=LENGTH, **SETTINGS[setting]) for p in case(row).prompts]
    assert [seen(generate(load(), row, setting, which)) for which in (0, 1)] != [seen(result) for result in free]


@parametrize_settings
@pytest.mark.parametrize("method", DRAFTERS)
@parametrize_rows
def test_every_drafter_gives_the_plain_text_whatever_came_before(row: Method, method: str, setting: str) -> None:
    plain, other = (generate(load(), row, setting, which) for which in (0, 1))
    model = load()
    assert seen(generate(model, row, setting, method=method)) == seen(plain)
    assert seen(generate(model, row, setting, 1, method)) == seen(other), "an earlier request shows"
    again = generate(model, row, setting, method=method)
    assert seen(again) == seen(plain), "what was learned changes the text"
    # Up to rounding: a toy's logits are float64.
    assert again.logprobs == pytest.approx(plain.logprobs, abs=1e-9)


@parametrize_settings
@parametrize_rows
def test_figures_add_up_and_texts_end_for_the_stated_reason(row: Method, setting: str) -> None:
    for seed in range(4):
        language_model = CountedModel(seed)
        result = generate(load(0, language_model), row, setting, method="token_recycling")
        figures = result.statistics
        assert (figures.tokens, figures.passes) == (len(result.token_ids), language_model.passes)
        assert 0 < figures.passes <= figures.tokens <= LENGTH
        assert EOS not in result.token_ids[:-1]
        # Where nothing but an end token may follow, a text under a constraint ends without one.
        complete = row.kind is CONSTRAINT and result.finish_reason == "stop"
        assert result.finish_reason == ("stop" if result.token_ids[-1] == EOS or complete else "length")
        assert result.finish_reason == "stop" or figures.tokens == LENGTH
        if result.finish_reason == "stop":
            assert case(row).complete(result.text) is not False


@parametrize_rows
def test_an_unknown_option_is_refused_before_any_work(row: Method) -> None:
    language_model = CountedModel()
    for name in row.options.__dataclass_fields__:
        with pytest.raises(UnknownNameError, match=f"did you mean '{name}'"):
            load(0, language_model).generate("ab", max_new_tokens=1, **named(row, {**case(row).options, f"{name}_": 1}))
    assert not language_model.passes and not language_model.filled


@pytest.mark.parametrize("row", rows(SHAPER))
def test_a_shaper_is_a_function_of_the_text(row: Method) -> None:
    """Nodes of a tree are asked for in any order, and their logits belong to the session."""
    model, rng = load(), np.random.default_rng(0)
    around, options = model.resources(), case(row).options

    def made() -> Shaper:
        return methods.build(row.name, SHAPER, around, options)

    prompt = model.encode(case(row).prompts[0])
    # Beginnings, branches of two symbols that may repeat, and longer texts before shorter ones.
    texts = [np.array(prompt + rng.choice(prompt[:2], n).tolist(), dtype=np.int64) for n in (*range(6), *range(6))]
    logits = rng.normal(size=(len(texts), model.language_model.vocab_size))
    before, shared = logits.copy(), made()
    alone = [made()(text, raw) for text, raw in zip(texts, logits, strict=True)]
    assert any(not np.array_equal(shaped, raw) for shaped, raw in zip(alone, logits, strict=True))
    for i in rng.permutation(len(texts)):
        assert np.array_equal(shared(texts[i], logits[i]), alone[i])
    assert np.array_equal(logits, before), "changed in place"
