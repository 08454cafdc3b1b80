"""The text of results, streams, batches and searches, with tokenizers of several forms on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import unspool
from tests.models import tokenizers_made as made
from unspool import Model, UnspoolError
from unspool.backends.toy import ToyModel
from unspool.models.tokenizer import Settings, Tokenizer

SETTINGS = Settings({"bos_token": "<s>"}, made.TEMPLATE)


class Wide(ToyModel):
    """A toy of more tokens than it may have, since nothing is enumerated here."""

    def __init__(self, rows: int) -> None:
        weights = np.exp(2 * np.random.default_rng(1).standard_normal((rows + 1, rows)))
        self.table = weights / weights.sum(axis=-1, keepdims=True)
        self.eos_token_id, self._max_length, self._logits = None, 512, np.log(self.table)


def model(form: str, settings: Settings = SETTINGS, fewer: int = 0) -> Model:
    tokenizer = Tokenizer.of(made.FORMS[form](), settings)
    rows = max(tokenizer.vocabulary.values()) + 1 - fewer
    return Model(form, form, Wide(rows), tokenizer, [tokenizer.vocabulary["</s>"]])


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    cleaned = Settings({"bos_token": "<s>"}, made.TEMPLATE, clean_up=True)
    return {name: model(name) for name in made.FORMS} | {"cleaned up": model("word piece", cleaned)}


FORMS = pytest.mark.parametrize("form", [*made.FORMS, "cleaned up"])
WARM = {"temperature": 1.0, "max_new_tokens": 24, "method": "plain"}


@FORMS
def test_streams_give_the_text_of_results(models: dict[str, Model], form: str) -> None:
    one = models[form]
    for seed, options in enumerate(
        [{}, {"stop": ["<|end|>", "e"]}, {"stop": "<|turn|>"}, {"stop": [" ", "\ufffd"]}] * 3
    ):
        for chat in (False, True):
            given: dict[str, Any] = {**WARM, **options, "seed": seed, "chat": chat}
            result = one.generate("the sea is", **given)
            stream = one.stream("the sea is", **given)
            assert "".join(stream) == stream.result.text == result.text
            if result.finish_reason != "stop_string":
                behind = one.tokenizer.context(result.prompt_token_ids)
                assert result.text == one.tokenizer.text(result.token_ids, behind)


@FORMS
def test_an_output_goes_on_with_its_prompt(models: dict[str, Model], form: str) -> None:
    one = models[form]
    for seed in range(6):
        result = one.generate("the sea is", chat=False, **WARM, seed=seed)
        whole = one.tokenizer.decode([*result.prompt_token_ids, *result.token_ids])
        if not one.tokenizer.is_special(result.prompt_token_ids[-1]):  # as BERT's [SEP]
            assert one.tokenizer.decode(result.prompt_token_ids) + result.text == whole


@pytest.mark.parametrize("form", ["byte level", "byte fallback", "byte fallback, no strip"])
@pytest.mark.parametrize("chat", [False, True])
def test_a_choice_is_one_of_the_choices(models: dict[str, Model], form: str, chat: bool) -> None:
    for choices in ([" yes", " no"], ["yes", "no"], ["é", "日本"]):
        result = models[form].generate("is the sea blue", choices=choices, chat=chat, max_new_tokens=12, method="plain")
        assert result.text in choices and result.parsed == result.text


def test_a_choice_behind_a_special_token_keeps_its_space() -> None:
    opened = Settings({}, "{% for m in messages %}{{ m.content }}{% endfor %}<|turn|>")
    one = model("byte fallback", opened)
    result = one.generate("is the sea blue", choices=[" yes", " no"], max_new_tokens=12, method="plain")
    assert one.tokenizer.is_special(result.prompt_token_ids[-1])
    assert result.text in (" yes", " no") and result.parsed == result.text
    stream = one.stream("is the sea blue", choices=[" yes", " no"], max_new_tokens=12, method="plain")
    assert "".join(stream) == result.text


def test_a_stop_string_may_begin_with_the_space_before_the_first_word(models: dict[str, Model]) -> None:
    one = models["byte fallback"]
    options = {"chat": False, "choices": [" yes<|no more", " yes no"], "max_new_tokens": 12, "method": "plain"}
    assert one.generate("the sea is", stop=" yes", **options).text == ""
    assert one.generate("the sea is", stop="s ", **options).text in (" ye", " yes<|no more")


def test_rows_of_a_batch_are_written_each_behind_its_own_prompt(models: dict[str, Model]) -> None:
    one = models["byte fallback"]
    prompts = ["the sea is", "is", "blue<s>"]
    rows = one.generate(prompts, chat=False, max_new_tokens=8, method="plain", stop="zzz")
    alone = [one.generate(prompt, chat=False, max_new_tokens=8, method="plain") for prompt in prompts]
    assert [row.text for row in rows] == [result.text for result in alone]


def test_searches_write_their_texts_behind_the_prompt(models: dict[str, Model]) -> None:
    one = models["byte fallback"]
    found = one.search("the sea is", method="beam", max_new_tokens=6, chat=False)
    for candidate in found.candidates:
        whole = one.tokenizer.decode([*found.prompt_token_ids, *candidate.token_ids])
        assert one.tokenizer.decode(found.prompt_token_ids) + candidate.text == whole


def test_a_tokenizer_with_more_ids_than_the_model(tmp_path: Path) -> None:
    one = model("byte level", fewer=2)  # <|turn|> and <|end|> have no row
    for options in ({"choices": ["the sea", "blue"]}, {"regex": "is|no"}, {"json_schema": {"type": "boolean"}}):
        result = one.generate("the sea", chat=False, max_new_tokens=12, method="plain", **options)
        assert result.finish_reason == "stop" or result.parsed is not None or result.text
        assert max(result.token_ids) < one.language_model.vocab_size
    with pytest.raises(UnspoolError, match=r"the prompt contains '<\|turn\|>'"):
        one.generate("the <|turn|>", chat=False)
    with pytest.raises(UnspoolError, match=r"the prompt contains '<\|end\|>'"):
        one.generate("the sea")


@pytest.mark.parametrize("backend", ["transformers", "openvino"])
def test_a_model_answers_as_transformers_reads_its_tokenizer(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts cut by tokenizer.json, a named template and a token of the map alone, through both backends."""
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    cut = {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}}
    sets = {"chat_template": [{"name": "default", "template": made.TEMPLATE}, {"name": "rag", "template": "x"}]}
    files = {"special_tokens_map.json": '{"bos_token": "<s>"}'}
    fast = made.byte_level()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=fast.get_vocab_size(), initializer_range=0.4, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    where = made.directory(tmp_path / "model", fast, sets, files, **cut)
    options = {"weights": "fp32"} if backend == "openvino" else {}
    one, theirs = unspool.load(str(where), backend=backend, **options), AutoTokenizer.from_pretrained(where)
    asked = [{"role": "user", "content": "the sea is blue"}]
    ids = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert one.encode("the sea is blue") == one.encode(asked) == ids
    assert one.encode("the sea is blue", chat=False) == theirs("the sea is blue")["input_ids"]
    result = one.generate("the sea is", method="plain", max_new_tokens=5)
    assert result.text == theirs.decode(result.token_ids, skip_special_tokens=True)
