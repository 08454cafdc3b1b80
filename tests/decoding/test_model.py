"""The public interface on SmolLM2, which is downloaded and converted on first use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import unspool
from unspool import Model, UnspoolError
from unspool.decoding.results import Result
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.trace import EndEvent, StartEvent, StepEvent, to_json
from unspool.engine.tree import TokenTree
from unspool.methods import methods
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix

pytestmark = pytest.mark.model

PROMPT = "List three colours, then list the same three colours again."
# Of those with a draft model two, since all of them draft through the same assistant; the toy model runs all.
ASSISTED = ("draft_model", "pearl")
DRAFTERS = [
    name
    for name, method in methods().items()
    if method.kind is DRAFTER and (not method.needs.assistant or name in ASSISTED)
]


@pytest.fixture(scope="module")
def model() -> Model:
    loaded = unspool.load("smollm2-135m", assistant_model="smollm2-135m")
    # A stated curve, so that auto drafts whatever this machine's speed is and no time is measured.
    loaded._costs = PassCosts(CostCurve((1, 8, 64), (32,), ((10.0, 11.0, 40.0),)))
    return loaded


@pytest.fixture(scope="module")
def noise(model: Model) -> float:
    """Largest change of a gap between two logits when the same tokens are scored at other widths."""
    session = model.language_model.open()
    tokens = model.encode(PROMPT)
    chain = TokenTree.chain(tokens)
    wide = session.score(chain).logits.copy()
    narrow = []
    for token in tokens:
        narrow.append(session.score(TokenTree.chain([token])).logits[0].copy())
        session.commit([0])
    difference = wide - np.array(narrow)
    return float((difference.max(axis=1) - difference.min(axis=1)).max())


SAMPLED, PENALISED = {"temperature": 0.8, "seed": 3}, {"repetition_penalty": 1.1}


@pytest.fixture(scope="module")
def plain_result(model: Model) -> Callable[..., Result]:
    """Plain decoding under some options, once for all methods."""
    return cache(lambda **options: model.generate(PROMPT, method="plain", max_new_tokens=64, **options))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {}) for method in DRAFTERS),
        # What shapes and draws is the same for all methods; the toy model runs all of them under all of it.
        *((method, options) for method in ("token_recycling", "pearl") for options in (SAMPLED, PENALISED)),
    ],
)
def test_every_method_gives_the_plain_text_up_to_ties(
    model: Model, plain_result: Callable[..., Result], noise: float, method: str, options: dict
) -> None:
    plain = plain_result(**options)
    other = model.generate(PROMPT, method=method, max_new_tokens=64, **options)
    margins = [m for event in plain.trace if isinstance(event, StepEvent) for m in event.margins]
    for ours, theirs, margin in zip(plain.token_ids, other.token_ids, margins, strict=False):
        if ours != theirs:
            assert margin < noise, f"margin {margin} is above the noise {noise}: a fault, not a tie"
            return
    assert len(plain.token_ids) == len(other.token_ids)


def test_drafts_are_accepted(model: Model) -> None:
    result = model.generate(PROMPT, method="token_recycling", max_new_tokens=64)
    assert result.statistics.mean_accepted_tokens > 1.3
    assert result.statistics.by_source["token_recycling"] > 10


def test_stream_gives_the_text_of_generate(model: Model) -> None:
    stream = model.stream(PROMPT, method="suffix", max_new_tokens=40)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = stream.result
    assert "".join(stream) == stream.result.text == model.generate(PROMPT, method="suffix", max_new_tokens=40).text


def test_stop_strings_end_the_text_before_them(model: Model) -> None:
    whole = model.generate(PROMPT, method="plain", max_new_tokens=40)
    word = whole.text.split()[3]
    for method in DRAFTERS:
        stopped = model.generate(PROMPT, method=method, max_new_tokens=40, stop=[word])
        assert stopped.text == whole.text[: whole.text.index(word)]
        assert stopped.finish_reason == "stop_string"
        stream = model.stream(PROMPT, method=method, max_new_tokens=40, stop=[word])
        assert "".join(stream) == stopped.text


def test_a_batch_equals_its_rows_alone(model: Model) -> None:
    prompts = ["Hello.", PROMPT, "Write one sentence about the sea and the wind."]
    together = model.generate(prompts, max_new_tokens=24, temperature=0.7, seed=2, method="plain")
    alone = [
        model.generate(prompt, max_new_tokens=24, temperature=0.7, seed=row.seed, method="plain")
        for prompt, row in zip(prompts, together, strict=True)
    ]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert [result.finish_reason for result in together] == [result.finish_reason for result in alone]


def test_results_carry_logprobs_statistics_and_a_trace(model: Model) -> None:
    result = model.generate(PROMPT, max_new_tokens=12, logprobs=True, method="suffix")
    assert result.logprobs is not None and len(result.logprobs) == len(result.token_ids) == 12
    assert all(p <= 0 for p in result.logprobs)
    assert result.finish_reason == "length"
    assert result.statistics.tokens == 12 and result.statistics.passes <= 12
    assert isinstance(result.trace[0], StartEvent) and isinstance(result.trace[-1], EndEvent)
    assert to_json(result.trace[0])["settings"]["backend"] == "openvino"


def test_prompts_may_be_conversations_or_ids(model: Model) -> None:
    text = model.generate(PROMPT, max_new_tokens=8)
    conversation = model.generate([{"role": "user", "content": PROMPT}], max_new_tokens=8)
    ids = model.generate(text.prompt_token_ids, max_new_tokens=8)
    assert text.token_ids == conversation.token_ids == ids.token_ids
    raw = model.generate(PROMPT, max_new_tokens=8, chat=False)
    assert len(raw.prompt_token_ids) < len(text.prompt_token_ids)


def test_memories_are_the_callers_to_hold(model: Model) -> None:
    memories = {"token_recycling": RecyclingMatrix()}
    model.generate(PROMPT, method="token_recycling", max_new_tokens=8, memories=memories)
    assert memories["token_recycling"].vocab_size == model.language_model.vocab_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "x " * 9000}, "context"),
        ({"prompt": "x", "max_new_tokens": 10_000}, "max_new_tokens to at most"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "method": "sufix"}, "did you mean 'suffix'"),
        ({"prompt": "x", "acceptance": "loss"}, "did you mean 'lossless'"),
        ({"prompt": "x", "acceptance": "greedy", "temperature": 1.0}, "temperature 0"),
        ({"prompt": "x", "temprature": 1.0}, "did you mean 'temperature'"),
        ({"prompt": "x", "method": "suffix:num_asistant_tokens=3"}, "num_assistant_tokens"),
        ({"prompt": [999_999]}, "vocabulary"),
        ({"prompt": "x", "memories": {"token_recycling": RecyclingMatrix(8, 7)}, "method": "token_recycling"}, "7"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(model: Model, arguments: dict, message: str) -> None:
    with pytest.raises(UnspoolError, match=message) as caught:
        model.generate(**arguments)
    assert "\n" not in str(caught.value)


def test_a_warm_start_does_not_load_torch(model: Model) -> None:
    code = (
        "import sys, unspool; model = unspool.load('smollm2-135m'); "
        "model.generate('Hi', method='plain', max_new_tokens=2); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_transformers_backend_decodes_the_same_catalogue_model() -> None:
    reference = unspool.load("smollm2-135m", backend="transformers")
    plain = reference.generate(PROMPT, method="plain", max_new_tokens=12)
    drafted = reference.generate(PROMPT, method="suffix", max_new_tokens=12)
    assert plain.token_ids == drafted.token_ids
    assert plain.text.strip()


def test_batch_plans_are_for_batches(model: Model) -> None:
    with pytest.raises(UnspoolError, match="needs a batch"):
        model.generate(PROMPT, batch="eqspec")
    with pytest.raises(UnspoolError, match="did you mean 'batch_size'"):
        model.generate([PROMPT], batch="eqspec:batch_sizes=2")
    with pytest.raises(UnspoolError, match="unknown batch plan 'eqspek'; did you mean 'eqspec'"):
        model.generate([PROMPT], batch="eqspek")


def test_a_name_of_another_kind_is_told_as_such(model: Model) -> None:
    with pytest.raises(UnspoolError, match="adadec is not a method but of kind search"):
        model.generate(PROMPT, method="adadec")
    with pytest.raises(UnspoolError, match="tiny-diffusion is a diffusion model, but a language model is needed"):
        unspool.load("tiny-diffusion", expect=Model)
    with pytest.raises(UnspoolError, match="did you mean 'tiny-diffusion'"):
        unspool.load("tiny-difusion")
