"""``transformers_method`` inside ``generate`` of tiny random checkpoints, against plain ``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    LlamaConfig,
    LogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from unspool import transformers_method
from unspool.engine.cost import CostCurve
from unspool.engine.trace import EndEvent, StartEvent, StepEvent
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models import calibration

TEMPLATE = Path(__file__).parents[2] / "docs" / "custom_generate_template"
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "pad_token_id": None,  # it would be an embedding of zeros, and its text a run of it
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
MIXED = ["sliding_attention", "full_attention"]
PROMPT = torch.tensor([[3, 17, 42, 9, 3, 17, 42]])
BATCH = torch.tensor([[0, 0, 0, 3, 17, 42, 9], [5, 6, 7, 5, 6, 7, 5], [0, 8, 50, 13, 8, 50, 13]])
MASK = (BATCH != 0).long()
METHODS = ["plain", "prompt_lookup", "suffix", "token_recycling", "auto"]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    gemma = Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8, layer_types=MIXED)
    config = LlamaConfig(**SIZES) if request.param == "llama" else gemma
    built = AutoModelForCausalLM.from_config(config).eval()
    built.generation_config.pad_token_id = 0
    built.generation_config.eos_token_id = None  # texts of full length; tests that need an end name it
    return built


@pytest.fixture(autouse=True)
def curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up cost curve: ``auto`` must not spend ten seconds measuring this machine."""
    cheap = CostCurve((1, 64), (32,), ((10.0, 12.0),))
    monkeypatch.setattr(calibration, "load", lambda model, key: cheap)


def both(model: PreTrainedModel, method: Any, ids: torch.Tensor = PROMPT, **options: Any) -> tuple[Any, Any]:
    """What plain ``generate`` gives, and what it gives with the method."""
    plain = model.generate(ids, **options)
    return plain, model.generate(ids, custom_generate=method, **options)


def some_token(model: PreTrainedModel, ids: torch.Tensor = PROMPT, at: int = 9, **options: Any) -> int:
    """A token that plain decoding emits in the middle of its text."""
    return int(model.generate(ids, max_new_tokens=24, **options)[0, ids.shape[1] + at])


class Recorder:
    """A streamer that remembers what it is given."""

    def __init__(self) -> None:
        self.pieces: list[torch.Tensor] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.pieces.append(value)

    def end(self) -> None:
        self.ended += 1

    def text(self) -> list[list[int]]:
        new = [piece[:, None] for piece in self.pieces[1:]]
        return torch.cat([self.pieces[0], *new], dim=1).tolist()


@pytest.mark.parametrize("name", METHODS)
def test_greedy_is_generate(model, name):
    method = transformers_method(name)
    plain, ours = both(model, method, max_new_tokens=48)
    assert torch.equal(plain, ours) and plain.dtype == ours.dtype
    if name != "plain":
        assert sum(isinstance(event, StepEvent) for event in method.trace) < 48  # drafts were accepted


@pytest.mark.parametrize("name", METHODS)
def test_left_padded_batches(model, name):
    options = {"attention_mask": MASK, "eos_token_id": some_token(model, BATCH, attention_mask=MASK)}
    plain, ours = both(model, transformers_method(name), BATCH, max_new_tokens=32, **options)
    assert torch.equal(plain, ours)
    assert (ours[0] == 0).sum() > 3, "the first row ends early and is padded"


def test_options_of_generate_become_shapers_with_the_padded_row_as_history(model):
    options = {
        "attention_mask": MASK,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 12,
        "bad_words_ids": [[11], [20, 21]],
        "eos_token_id": 33,
        "prefix_allowed_tokens_fn": lambda row, ids: [t for t in range(3, 64) if t % 3 != row],
    }
    plain, ours = both(model, transformers_method("token_recycling"), BATCH, max_new_tokens=24, **options)
    assert torch.equal(plain, ours)
    assert not any(int(token) % 3 == row for row in range(3) for token in ours[row, 7:19])


class ForbidAfterOdd(LogitsProcessor):
    """Depends on the last id alone, so that a wrong history of a drafted node shows."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        odd = input_ids[:, -1:] % 2 == 1
        return scores.masked_fill(odd & (torch.arange(scores.shape[1]) % 4 == 0), -float("inf"))


def test_custom_processors_see_each_nodes_own_history(model):
    method = transformers_method("token_recycling")
    plain, ours = both(model, method, max_new_tokens=40, logits_processor=[ForbidAfterOdd()])
    assert torch.equal(plain, ours)
    assert sum(isinstance(event, StepEvent) for event in method.trace) < 40


@pytest.mark.parametrize("name", ["prompt_lookup", "token_recycling"])
def test_sampling_is_the_plain_run_of_that_seed(model, name):
    options = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "max_new_tokens": 32}
    runs = {
        seed: model.generate(PROMPT, custom_generate=transformers_method("plain", seed=seed), **options)
        for seed in (5, 6, 7)
    }
    drafted = model.generate(PROMPT, custom_generate=transformers_method(name, seed=6), **options)
    assert torch.equal(drafted, runs[6]) and not torch.equal(runs[5], runs[6])
    method = transformers_method(name, seed=5)
    rows = model.generate(PROMPT, custom_generate=method, num_return_sequences=3, **options)
    assert torch.equal(rows, torch.cat([runs[5], runs[6], runs[7]]))


def test_sampling_without_a_seed_follows_torchs_generator(model):
    options = {"do_sample": True, "max_new_tokens": 16, "custom_generate": transformers_method("plain")}
    torch.manual_seed(1)
    first, second = (model.generate(PROMPT, **options) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(model.generate(PROMPT, **options), first) and not torch.equal(first, second)


def test_sampling_has_the_distribution_of_generate(model):
    """First tokens of 400 rows under ``top_k=4``, against the exact probabilities."""
    options = {"do_sample": True, "temperature": 0.8, "top_k": 4, "max_new_tokens": 1, "return_dict_in_generate": True}
    exact = model.generate(PROMPT, output_scores=True, **options).scores[0][0].softmax(-1)
    method = transformers_method("plain", acceptance="lossless", seed=1)
    drawn = model.generate(PROMPT, custom_generate=method, num_return_sequences=400, **options).sequences[:, -1]
    counts = torch.bincount(drawn, minlength=64)
    kept = exact > 0
    assert int(kept.sum()) == 4 and counts[~kept].sum() == 0
    expected = 400 * exact[kept]
    chi_square = float(((counts[kept] - expected) ** 2 / expected).sum())
    assert chi_square < 21.1  # 3 degrees of freedom, level 1e-4


@pytest.mark.parametrize("as_list", [False, True])
def test_end_of_text_inside_a_draft(model, as_list):
    eos = some_token(model)
    plain, ours = both(model, transformers_method("suffix"), max_new_tokens=32, eos_token_id=[eos] if as_list else eos)
    assert torch.equal(plain, ours) and ours[0, -1] == eos and ours.shape[1] < PROMPT.shape[1] + 32


class StopAfter(StoppingCriteria):
    """Ends each row once its newest token is one of these; the answer depends on the row."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.lengths: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.lengths.append(input_ids.shape[1])
        return torch.tensor([int(row[-1]) == token for row, token in zip(input_ids, self.tokens, strict=True)])


def test_stopping_criteria(model):
    token = some_token(model)
    method = transformers_method("token_recycling")
    criteria = StopAfter([token])
    plain, ours = both(model, method, max_new_tokens=32, stopping_criteria=StoppingCriteriaList([criteria]))
    assert torch.equal(plain, ours) and ours[0, -1] == token
    assert [event.reason for event in method.trace if isinstance(event, EndEvent)] == ["stopping_criteria"]
    ours_alone = criteria.lengths[len(criteria.lengths) // 2 :]
    assert ours_alone == list(range(8, ours.shape[1] + 1)), "called once for each length"


def test_stopping_criteria_may_depend_on_the_row(model):
    options = {"attention_mask": MASK, "max_new_tokens": 24, "eos_token_id": 63, "suppress_tokens": [0, 63]}
    token = int(model.generate(BATCH, **options)[1, 12])
    criteria = [StopAfter([-1, token, -1])]
    plain, ours = both(model, transformers_method("suffix"), BATCH, stopping_criteria=criteria, **options)
    assert torch.equal(plain, ours)
    assert (ours[1, -5:] == 0).all() and (ours[[0, 2], -5:] != 0).all()


def test_max_length_counts_the_padding(model):
    plain, ours = both(model, transformers_method("suffix"), BATCH, max_length=19, attention_mask=MASK)
    assert torch.equal(plain, ours) and ours.shape[1] == 19


@pytest.mark.parametrize("batched", [False, True])
def test_the_streamer_gets_prompt_and_tokens_as_from_generate(model, batched):
    ids, mask = (BATCH, MASK) if batched else (PROMPT, torch.ones_like(PROMPT))
    options = {
        "attention_mask": mask,
        "max_new_tokens": 24,
        "eos_token_id": some_token(model, ids, attention_mask=mask),
    }
    expected, got = Recorder(), Recorder()
    model.generate(ids, streamer=expected, **options)
    ours = model.generate(ids, custom_generate=transformers_method("token_recycling", streamer=got), **options)
    assert got.ended == expected.ended == 1
    assert got.text() == expected.text() == ours.tolist()
    assert [piece.shape for piece in got.pieces] == [piece.shape for piece in expected.pieces]


def test_scores_and_logits(model):
    options = {
        "attention_mask": MASK,
        "max_new_tokens": 16,
        "repetition_penalty": 1.2,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "eos_token_id": some_token(model, BATCH, attention_mask=MASK, repetition_penalty=1.2),
    }
    method = transformers_method("token_recycling")
    plain, ours = both(model, method, BATCH, **options)
    assert torch.equal(plain.sequences, ours.sequences)
    steps = [event for event in method.trace if isinstance(event, StepEvent)]
    lengths = [sum(len(step.emitted) for step in steps if step.row == row) for row in range(3)]
    assert min(lengths) < max(lengths)
    for theirs, mine in ((plain.scores, ours.scores), (plain.logits, ours.logits)):
        assert len(theirs) == len(mine) == max(lengths)
        for step, (expected, got) in enumerate(zip(theirs, mine, strict=True)):
            for row, length in enumerate(lengths):
                if step < length:
                    assert torch.allclose(expected[row], got[row], atol=1e-4)
                else:
                    assert not got[row].any()
    only = model.generate(BATCH, custom_generate=transformers_method("plain"), **{**options, "output_logits": False})
    assert only.logits is None and len(only.scores) == max(lengths)


class ForbidInPlace(LogitsProcessor):
    """Writes into the scores that it is given, as processors may."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, ::3] = -float("inf")
        return scores


def test_processors_that_write_in_place_leave_the_raw_logits_alone(model):
    options = {"max_new_tokens": 6, "logits_processor": [ForbidInPlace()], "return_dict_in_generate": True}
    ours = model.generate(PROMPT, custom_generate=transformers_method("plain"), output_logits=True, **options)
    plain = model.generate(PROMPT, **options)
    assert torch.equal(plain.sequences, ours.sequences) and torch.stack(ours.logits).isfinite().all()


def test_without_scores_the_dict_holds_sequences(model):
    plain, ours = both(model, transformers_method("suffix"), max_new_tokens=8, return_dict_in_generate=True)
    assert torch.equal(plain.sequences, ours.sequences) and ours.scores is ours.logits is None


def test_what_was_learned_stays_between_calls(model):
    def passes(method: Any) -> int:
        model.generate(PROMPT, custom_generate=method, max_new_tokens=32, repetition_penalty=1.5)
        return sum(isinstance(event, StepEvent) for event in method.trace)

    method = transformers_method("token_recycling")
    first = passes(method)
    assert passes(method) < first
    assert passes(transformers_method("token_recycling")) == first
    memories: dict[str, Any] = {}
    assert passes(transformers_method("token_recycling", memories=memories)) == first
    assert passes(transformers_method("token_recycling", memories=memories)) < first
    assert set(memories) == {"token_recycling"}


def test_one_callable_serves_several_models(model):
    other = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, "vocab_size": 80})).eval()
    other.generation_config.eos_token_id = None
    method = transformers_method("token_recycling")
    for served in (model, other, model):
        plain, ours = both(served, method, max_new_tokens=12)
        assert torch.equal(plain, ours)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_beams": 2}, "beam_search"),
        ({"prompt_lookup_num_tokens": 3}, "assisted_generation"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
        ({"output_hidden_states": True, "return_dict_in_generate": True}, "output_hidden_states"),
        ({"past_key_values": DynamicCache()}, "past_key_values"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0]])}, "padding_side='left'"),
        ({"attention_mask": torch.tensor([[1, 0, 1, 1, 1, 1, 1]])}, "padding_side='left'"),
        ({"position_ids": torch.arange(3, 10)[None]}, "position_ids"),
        ({"guidance_scale": 1.5}, "ClassifierFreeGuidance"),
    ],
)
def test_what_cannot_be_had_is_refused(model, options, reason):
    with pytest.raises(UnsupportedError, match=reason):
        model.generate(PROMPT, custom_generate=transformers_method("plain"), max_new_tokens=4, **options)


def test_embeddings_as_input_are_refused(model):
    embeddings = torch.zeros(1, 3, 32)
    with pytest.raises(UnsupportedError, match="inputs_embeds"):
        model.generate(inputs_embeds=embeddings, custom_generate=transformers_method("plain"), max_new_tokens=4)


def test_bad_input_says_what_to_do(model):
    with pytest.raises(UnknownNameError, match="did you mean 'token_recycling'"):
        transformers_method("token_recyling")
    with pytest.raises(UnknownNameError, match="option of prompt_lookup"):
        transformers_method("prompt_lookup:wings=2")
    with pytest.raises(UnsupportedError, match="same_noise"):
        model.generate(PROMPT, custom_generate=transformers_method("plain", acceptance="same_noise"))
    with pytest.raises(UnspoolError, match="at most 121"):
        model.generate(PROMPT, custom_generate=transformers_method("plain"), max_new_tokens=200)
    with pytest.raises(UnspoolError, match="set pad_token_id"):
        bare = {"eos_token_id": None, "pad_token_id": None, "stopping_criteria": [StopAfter([1, 2, 3])]}
        pad, model.generation_config.pad_token_id = model.generation_config.pad_token_id, None
        try:
            model.generate(BATCH, attention_mask=MASK, custom_generate=transformers_method("plain"), **bare)
        finally:
            model.generation_config.pad_token_id = pad
    model.train()
    with pytest.raises(UnspoolError, match=r"eval\(\)"):
        model.generate(PROMPT, custom_generate=transformers_method("plain"))
    model.eval()


def test_the_directory_template(model, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    streamer = Recorder()
    ours = model.generate(
        PROMPT,
        custom_generate=str(TEMPLATE),
        trust_remote_code=True,
        method="token_recycling:k=4",
        streamer=streamer,
        max_new_tokens=24,
    )
    plain = model.generate(PROMPT, max_new_tokens=24)
    assert torch.equal(plain, ours) and streamer.text() == ours.tolist()


def test_a_trace_names_the_method_with_its_options(model: PreTrainedModel) -> None:
    method = transformers_method("token_recycling(k=4)")
    model.generate(PROMPT, custom_generate=method, max_new_tokens=3)
    assert {event.method for event in method.trace if isinstance(event, StartEvent)} == {"token_recycling:k=4"}
