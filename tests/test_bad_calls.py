"""Calls that cannot be served: one line of an ``UnspoolError`` that names the option, before the model scores anything.

And their neighbours: values of near types, which are taken with their obvious meaning.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unspool
from unspool import Model, UnspoolError, methods
from unspool.conformance.small_model import EOS, PIECES, load
from unspool.decoding.canvas import DiffusionModel
from unspool.engine.canvas_request import CanvasOptions
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.methods.drafters.plain import PlainOptions

P = "ab=1, x(ab=1"
NAN, INF = float("nan"), float("inf")
SIZE = len(PIECES)

# By option, values that are refused; the message must hold the option's name.
WRONG: dict[str, list[Any]] = {
    "max_new_tokens": [None, 1.5, 2.0, "4", True, 0, -1, [3], 10**9, 10**30, NAN],
    "temperature": [None, "0.5", NAN, INF, -INF, -1, True, [0.5], 10**400, 1j],
    "top_k": [None, 1.5, "8", -1, False, np.float32(3)],
    "top_p": [None, "0.9", 0, 1.1, NAN, INF, True],
    "min_p": [None, -0.1, 2, NAN, "0"],
    "typical_p": [None, 0, 1.5, NAN, b"1"],
    "repetition_penalty": [None, 0, -1, INF, NAN, "1", 1e-300, 1e300],
    "no_repeat_ngram_size": [None, -1, 2.5, "2"],
    "seed": [None, 1.5, "a", -1, 2**64, 10**40, True, NAN, [1, 2], [], [0.5], np.float64(3)],
    "eos_token_id": ["2", 1.5, [1.5], [-1], -1, ["a"], True, 10**6, [SIZE], b"a"],
    "stop": [None, 5, [b"a"], b"a", "", [""], [None], {"a": 1}, ["a", 3], "\ud800"],
    "bad_words_ids": [None, 5, [5, 6], [[]], [["a"]], "ab", [[-1]], [[2**40]], [[1.5]], [SIZE]],
    "sequence_bias": [
        None, [((1,), 2.0)], {1: 2.0}, {"a": 1.0}, {(1,): "x"}, {(1,): NAN}, {(): 1.0}, {(-1,): 1.0}, {(10**9,): 1.0},
    ],
    "logprobs": [None, 1, 0, "yes"],
    "alternatives": [None, -1, 21, 2.5, "3", True],
    "on_event": [5, "print", [print]],
    "shapers": [None, "rpg", [5], [None], 7],
    "method": [None, "", 5, b"plain", ["plain"]],
    "acceptance": ["", 5, ["greedy"]],
    "chat": [1, "yes", 0],
    "memories": [[], "auto", 5],
    "regex": ["", 5, ["a"], b"a"],
    "grammar": ["", 5, b"start: A"],
    "choices": [[], [""], "yes", [5], 5, b"ab", {"a": 1}, [["a"]]],
    "constraint": ["", 5],
    "json_schema": ["", 5, [], "{", None.__class__],
    "batch": ["", 5],
}  # fmt: skip
PROMPTS: list[Any] = [
    None, "", [], (), b"abc", bytearray(b"a"), 5, 1.5, [504.0, 1.7], [True], ["a", 5], [5, "a"], [None], {1, 2},
    {"role": "user", "content": "a"}, [{"role": "user"}], [{"content": "a"}], [{"role": "user", "content": None}],
    [{"role": 5, "content": "a"}], "\ud800", [SIZE], [-1], [10**30], np.array([[1, 2], [3, 4]]), np.array([0.5]),
    np.array(3), np.array([]), torch.tensor([[1, 2]]), ["a", ""], [[1], []], (token for token in ()), [[1], "a", 5],
]  # fmt: skip
METHOD_OPTIONS: list[tuple[str, str, Any]] = [
    *(("stand", "nodes", value) for value in (8.5, "8", None, True, [8], 0)),
    *(("suffix", "num_assistant_tokens", value) for value in (1.5, None, "4", NAN)),
    *(("auto", "forget", value) for value in ("0.5", None, NAN, [0.5])),
    *(("auto", "candidates", value) for value in (1.5, None)),
    *(("prompt_lookup", "max_matching_ngram_size", value) for value in (2.0, False)),
    *(("token_recycling", "k", value) for value in (4.5, "4")),
    *(("aded", "increment", value) for value in ("a", NAN)),
    *(("rasd", "drafter", value) for value in (5, "")),
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


@pytest.fixture(scope="module")
def text(model: Model) -> str:
    return model.generate(P, chat=False, max_new_tokens=6, method="plain").text


def refused(model: Model, name: str, call: Any, match: bool = True) -> None:
    scored = model.language_model.passes, model.language_model.filled  # type: ignore[attr-defined]
    with pytest.raises(UnspoolError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 300
    if match:
        assert name in message or name.replace("_", " ") in message
    assert scored == (model.language_model.passes, model.language_model.filled)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_an_option_of_another_type_or_out_of_range_is_refused_by_name(
    model: Model, text: str, name: str, value: Any
) -> None:
    options = {"chat": False, "max_new_tokens": 3, "temperature": 1.0} | {name: value}
    # A shaper and a choice are not named by their option alone.
    named = {"shapers": "shaper", "json_schema": "chema", "max_new_tokens": "max_new_tokens"}.get(name, name)
    refused(model, named, lambda: model.generate(P, **options))
    if name != "batch":
        refused(model, named, lambda: model.stream(P, **options))
    assert model.generate(P, chat=False, max_new_tokens=6, method="plain").text == text


@pytest.mark.parametrize(
    "prompt",
    PROMPTS,
    ids=lambda prompt: re.sub(r"\W+|0x[0-9a-f]+", "_", repr(prompt).encode("ascii", "replace").decode()),
)
def test_a_prompt_that_is_none_is_refused(model: Model, prompt: Any) -> None:
    refused(model, "", lambda: model.generate(prompt, chat=False, max_new_tokens=3), match=False)


@pytest.mark.parametrize(("method", "name", "value"), METHOD_OPTIONS)
def test_options_of_methods_are_of_their_type(model: Model, method: str, name: str, value: Any) -> None:
    refused(model, name, lambda: methods.choose(method, DRAFTER, {name: value}))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("num_samples", lambda m: m.sample(P, 1.5, regex="a")),
        ("num_samples", lambda m: m.sample(P, None, regex="a")),
        ("temperature", lambda m: m.sample(P, 1, regex="a", temperature="1")),
        ("seed", lambda m: m.sample(P, 1, regex="a", seed=None)),
        ("sampler", lambda m: m.sample(P, 1, regex="a", sampler="")),
        ("regex", lambda m: m.sample(P, 1, regex="")),
        ("max_attempts", lambda m: m.sample(P, 1, regex="a", max_attempts=2.5)),
        ("trie", lambda m: m.sample(P, 1, regex="a", trie=5)),
        ("method", lambda m: m.search(P, method=5)),
        ("max_new_tokens", lambda m: m.search(P, method="beam", max_new_tokens="9")),
        ("num_beams", lambda m: m.search(P, method="beam:num_beams=2.5")),
        ("stop_rule", lambda m: m.search(P, method="beam", stop_rule="")),
        ("reward", lambda m: m.search(P, method="plan", reward=5)),
        ("on_event", lambda m: m.search(P, method="beam", on_event=5)),
        ("top_k", lambda m: m.extract("a", P, top_k=1.5)),
        ("max_span_tokens", lambda m: m.extract("a", P, max_span_tokens="3")),
        ("length_penalty", lambda m: m.extract("a", P, length_penalty=NAN)),
        ("best_first", lambda m: m.extract("a", P, best_first=1)),
        ("mode", lambda m: m.edit(P, mode="")),
        ("refresh_tokens", lambda m: m.edit(P, refresh_tokens=1.5)),
        ("temperature", lambda m: CanvasOptions(temperature="0")),
        ("seed", lambda m: CanvasOptions(seed=None)),
        ("cache", lambda m: CanvasOptions(cache="full")),
        ("stop_at_eos", lambda m: CanvasOptions(stop_at_eos=1)),
        ("truncate_at_eos", lambda m: CanvasOptions(truncate_at_eos=NAN)),
        ("max_new_tokens", lambda m: DiffusionModel(None, None, "none").generate("a", max_new_tokens=1.5)),
        ("method", lambda m: DiffusionModel(None, None, "none").generate("a", method="")),
    ],
)
def test_other_calls_check_their_options_in_the_same_way(model: Model, name: str, call: Any) -> None:
    refused(model, name, lambda: call(model))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("name", {"name": ""}),
        ("name", {"name": 5}),
        ("backend", {"backend": 5}),
        ("backend", {"backend": ""}),
        ("report", {"report": None}),
        ("assistant_model", {"assistant_model": ""}),
        ("assistant_model", {"assistant_model": 5}),
        ("threads", {"threads": 1.5}),
        ("threads", {"threads": "2"}),
        ("threads", {"threads": 0}),
        ("weights", {"weights": None}),
        ("weights", {"weights": ""}),
    ],
)
def test_load_refuses_before_it_reads_anything(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    given = {"name": tmp_path} | options
    with pytest.raises(UnspoolError) as caught:
        unspool.load(**given)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("near", "same"),
    [
        ({"seed": np.int64(3)}, {"seed": 3}),
        ({"seed": np.uint8(3)}, {"seed": 3}),
        ({"seed": torch.tensor(3)}, {"seed": 3}),
        ({"temperature": np.float32(0.5)}, {"temperature": 0.5}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"top_k": np.int32(3)}, {"top_k": 3}),
        ({"top_p": np.float64(0.5)}, {"top_p": 0.5}),
        ({"max_new_tokens": np.int16(4)}, {"max_new_tokens": 4}),
        ({"eos_token_id": 3}, {"eos_token_id": [3]}),
        ({"eos_token_id": np.array([3, 4])}, {"eos_token_id": [3, 4]}),
        ({"eos_token_id": []}, {"eos_token_id": ()}),
        ({"bad_words_ids": np.array([[5], [6]])}, {"bad_words_ids": [[5], [6]]}),
        ({"sequence_bias": {(np.int64(5),): np.float32(2)}}, {"sequence_bias": {(5,): 2.0}}),
        ({"stop": "="}, {"stop": ["="]}),
        ({"stop": (piece for piece in "=,")}, {"stop": ["=", ","]}),
        ({"logprobs": np.bool_(True)}, {"logprobs": True}),
        ({"regex": "(ab)+", "choices": None}, {"regex": "(ab)+"}),
        ({"choices": (piece for piece in ("ab", "co"))}, {"choices": ["ab", "co"]}),
        ({"method": PlainOptions()}, {"method": "plain"}),
    ],
)  # fmt: skip
def test_near_types_are_taken(model: Model, near: dict[str, Any], same: dict[str, Any]) -> None:
    options = {"chat": False, "max_new_tokens": 12, "temperature": 1.0, "method": "plain"}
    ours, theirs = (model.generate(P, **(options | given)) for given in (near, same))
    assert (ours.token_ids, ours.finish_reason, ours.seed) == (theirs.token_ids, theirs.finish_reason, theirs.seed)
    assert type(ours.seed) is int


def test_prompts_of_near_types_are_taken(model: Model) -> None:
    ids = model.encode(P, chat=False)
    want = model.generate(ids, max_new_tokens=6).token_ids
    for near in (
        np.array(ids),
        np.array(ids, dtype=np.uint16),
        torch.tensor(ids),
        tuple(ids),
        (token for token in ids),
    ):
        assert model.generate(near, max_new_tokens=6).token_ids == want
    rows = model.generate([ids, ids[:3]], max_new_tokens=6)
    assert [row.prompt_token_ids for row in rows] == [ids, ids[:3]] and rows[0].token_ids == want


def test_values_become_python_s_own() -> None:
    made = GenerationOptions(
        max_new_tokens=np.int64(3), temperature=np.float32(0.5), stop="a", eos_token_id=EOS, logprobs=np.bool_(True)
    )
    assert [type(made.max_new_tokens), type(made.temperature), type(made.logprobs)] == [int, float, bool]
    assert (made.stop, made.eos_token_id) == (("a",), (EOS,))
