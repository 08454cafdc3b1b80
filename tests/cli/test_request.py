"""The flags of a request are the fields of its dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from tests.cli.conftest import Main
from unspool.cli import generate, request
from unspool.decoding.request import CanvasArguments, GenerationArguments
from unspool.errors import UnspoolError


def test_every_field_has_a_flag_or_is_of_python_alone() -> None:
    """A new field of a request must be put into a panel, or said to have no flag."""
    shown = [name for names in request.PANELS.values() for name in names]
    known = {field.name for kind in (GenerationArguments, CanvasArguments) for field in fields(kind)}
    assert len(shown) == len(set(shown)) and set(shown) | request.PYTHON_ONLY == known
    assert not set(shown) & request.PYTHON_ONLY
    assert set(shown) < set(inspect.signature(generate.generate).parameters)


def test_help_has_what_the_docstrings_say_with_ranges_and_defaults(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = main("generate", "--help")
    text = " ".join(out.replace("│", " ").split())
    for part in (
        "probability; 0: all (in 0 to 1; default 0)",
        "Maximum number of tokens to emit (in 1 to 2^24; default 256). On a canvas: slots of the canvas. Default:",
        "Acceptance rule. Default: greedy, or same_noise above temperature 0.",
        "Diffusion models",
    ):
        assert part in text, part
    assert "On a canvas" not in main("sample", "--help")[1]


def test_flags_become_values_of_the_fields(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    made = request.arguments_of(None, {"json_schema": schema, "min_p": 0.1, "no_repeat_ngram_size": 3}, None)
    assert isinstance(made, GenerationArguments)
    assert (made.json_schema, made.min_p, made.no_repeat_ngram_size) == ('{"type": "object"}', 0.1, 3)
    made = request.arguments_of("tiny-diffusion", {"canvas": '["a", 3]', "cache": "dual"}, None)
    assert isinstance(made, CanvasArguments) and (made.canvas, made.cache) == (["a", 3], "dual")
    for given, message in (
        ({"typical_p": 0.5}, "tiny-diffusion is a diffusion model, which does not support --typical-p"),
        ({"shapers": ["rpg"]}, "which does not support --shaper;"),
        ({"chat": True}, "which does not support --chat;"),
        ({"logprobs": True}, "which does not support --logprobs;"),
    ):
        with pytest.raises(UnspoolError, match=message):
            request.arguments_of("tiny-diffusion", given, None)
    with pytest.raises(UnspoolError, match="--stop-at-eos is for diffusion models"):
        request.arguments_of(None, {"stop_at_eos": True}, None)
