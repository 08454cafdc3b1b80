"""The arguments of a request: one frozen dataclass a loop, which refuses before a model is there."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from unspool.conformance import small_model
from unspool.decoding.generate import generate_batch, requests, stream
from unspool.decoding.request import CanvasArguments, GenerationArguments, arguments
from unspool.engine.options import GenerationOptions
from unspool.errors import UnspoolError


def test_arguments_are_frozen_and_what_the_loop_reads_is_a_part_of_them() -> None:
    made = GenerationArguments(method="plain", seed=[1, 2], temperature=0.5)
    with pytest.raises(FrozenInstanceError):
        made.method = "auto"  # type: ignore[misc]
    assert made.engine_options(seed=2) == GenerationOptions(temperature=0.5, seed=2)
    assert {field.name for field in fields(GenerationOptions)} < {field.name for field in fields(GenerationArguments)}


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (GenerationArguments, {"cache": "dual"}, "cache is for diffusion models"),
        (GenerationArguments, {"top_q": 1}, "unknown generation option 'top_q'; did you mean 'top_p'"),
        (GenerationArguments, {"regex": "a", "constraint": "monitor"}, "monitor and regex cannot be combined"),
        (GenerationArguments, {"seed": [1, -1]}, r"seed must lie in 0 to 2\^64 - 1, not -1"),
        (GenerationArguments, {"max_new_tokens": 0}, r"max_new_tokens must lie in 1 to 2\^24, not 0"),
        (CanvasArguments, {"top_k": 1}, "m is a diffusion model, which does not support top_k"),
        (CanvasArguments, {"canvas": [3], "max_new_tokens": 3}, "leave max_new_tokens out"),
        (CanvasArguments, {"guidance_scale": -1}, "guidance_scale must be at least 0 and finite"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        arguments(kind, given, "m")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (GenerationArguments(method="plian"), "did you mean 'plain'"),
        (GenerationArguments(method="draft_model"), "draft_model needs a draft model"),
        (GenerationArguments(acceptance="lossless"), None),
        (GenerationArguments(acceptance="greedy", temperature=1.0), "'greedy' is for temperature 0"),
        (GenerationArguments(shapers=["plain"]), "plain is not a shaper"),
        (GenerationArguments(regex="a(("), "a\\(\\("),
        (CanvasArguments(method="plain"), "unknown method for canvases"),
        (CanvasArguments(grammar="start: ("), "grammar"),
    ],
)
def test_methods_and_grammars_are_checked_without_a_model(made: Any, message: str | None) -> None:
    if message is None:
        made.check()
        return
    with pytest.raises(UnspoolError, match=message):
        made.check()


def test_every_way_in_makes_the_same_request() -> None:
    model = small_model.load()
    given: dict[str, Any] = {"method": "plain", "temperature": 0.8, "max_new_tokens": 6, "stop": "x("}
    made = GenerationArguments(**given, seed=[4, 9])
    one, two = requests(model, ["ab", "co"], made)
    assert (one.request.options.seed, two.request.options.seed) == (4, 9)
    first, second = generate_batch(model, ["ab", "co"], made)
    assert [first.text, second.text] == [model.generate(p, **given, seed=s).text for p, s in (("ab", 4), ("co", 9))]
    streamed = stream(model, "ab", GenerationArguments(**given, seed=4))
    assert "".join(streamed) == first.text and streamed.result.model == first.model == model.name
    with pytest.raises(UnspoolError, match="a stream is one text"):
        stream(model, "ab", GenerationArguments(batch="eqspec"))
    with pytest.raises(UnspoolError, match="seed has 2 seeds for 1 prompts"):
        requests(model, ["ab"], made)


def test_every_result_names_its_method_and_its_model() -> None:
    model = small_model.load()
    found = model.search("ab", method="beam:num_beams=2", max_new_tokens=3)
    assert (found.method, found.model) == ("beam:num_beams=2", model.name)
    drawn = model.sample("ab", 1, sampler="asap", choices=["a", "b"], max_new_tokens=2, method="plain")
    assert (drawn.method, drawn.model) == ("asap", model.name)
    span = model.extract("ab", "ab=1, x(a)", top_k=2)
    assert (span.method, span.model) == ("extract:top_k=2", model.name)
    text = model.edit("ab=1")
    edited = text.generate(method="plain", max_new_tokens=2)
    assert (edited.method, edited.model) == ("plain", model.name)
