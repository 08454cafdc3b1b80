"""``unspool sample`` and ``unspool edit`` on a model of milliseconds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Main
from unspool.cli import edit as edit_command
from unspool.conformance import small_model
from unspool.decoding import load as api
from unspool.decoding.model import Model
from unspool.errors import UnspoolError


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = small_model.load()
    monkeypatch.setattr(api, "load", lambda *_, **__: made)
    monkeypatch.setattr("unspool.cli.common.check_length", lambda *_: None)
    return made


SAMPLE = ("sample", "--choices", "ab", "--choices", "co", "--method", "plain", "--max-new-tokens", "4", "--seed", "5")


def test_sample_prints_the_texts_that_the_verb_draws(model: Model, main: Main) -> None:
    expected = model.sample("x=", 6, choices=["ab", "co"], method="plain", max_new_tokens=4, seed=5)
    code, out, error = main(*SAMPLE, "-n", "6", "x=")
    assert (code, out.splitlines()) == (0, [result.text for result in expected.results])
    said = error.splitlines()
    assert "samples: 6 of 6" in said
    assert said[-1] == (
        f"[6 texts · {expected.attempts} attempts · {expected.rejected} rejected · {expected.cut} cut · "
        f"{expected.passes} passes · cars]"
    )
    code, out, _ = main(*SAMPLE, "-n", "6", "--json", "x=")
    data = json.loads(out)
    assert [one["text"] for one in data["samples"]] == [one["parsed"] for one in data["samples"]]
    assert (data["method"], data["model"], data["attempts"]) == ("cars", model.name, expected.attempts)


def test_attempts_that_run_out_end_with_3(model: Model, main: Main) -> None:
    code, out, error = main(*SAMPLE, "-n", "50", "--max-attempts", "2", "x=")
    assert code == 3 and len(out.splitlines()) <= 2
    assert "unspool: 2 attempts gave" in error and "--max-attempts" in error


def run(main: Main, *arguments: str) -> tuple[str, list[str]]:
    code, out, error = main("edit", "--method", "plain", "--max-new-tokens", "6", *arguments)
    assert code == 0, error
    return out, error.splitlines()


def test_edit_continues_what_the_changes_make(model: Model, main: Main) -> None:
    text = model.edit("ab=1,\nx=ab")
    wanted = [text.replace(0, 2, "co"), text.replace(5, 5, "\n")]
    expected = text.generate(method="plain", max_new_tokens=6)
    out, said = run(main, "--replace", "ab==>co=", "-r", ",\nx=>,\n\nx", "ab=1,\nx=ab")
    del wanted
    assert said[-1].endswith("plain · length]") or "plain" in said[-1]
    assert len([line for line in said if "moved" in line]) == 2
    data: dict[str, Any] = json.loads(
        run(main, "--replace", "ab==>co=", "-r", ",\nx=>,\n\nx", "--json", "ab=1,\nx=ab")[0]
    )
    assert data["prompt"] == text.text == "co=1,\n\nx=ab"
    assert data["text"] + "\n" == out and len(data["edits"]) == 2
    assert data["exact"] is expected.exact is False


def test_a_cache_that_is_encoded_again_is_exact(model: Model, main: Main) -> None:
    out, said = run(main, "--mode", "recompute", "--replace", "ab=>co", "x=1,ab,x=1")
    assert any(line.startswith("[exact · ") for line in said)
    plain = model.generate("x=1,co,x=1", method="plain", max_new_tokens=6, chat=False)
    assert out == plain.text + "\n"


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        (["ab"], '"OLD=>NEW", not'),
        (["=>x"], '"OLD=>NEW", not'),
        (["zz=>x"], "'zz' does not occur in the text"),
        (["a=>x"], "'a' occurs 2 times in the text; give more of it"),
        (["b=>", "b=>x"], "'b' does not occur"),
    ],
)
def test_changes_that_fit_no_place_are_refused(replacements: list[str], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        edit_command.changes_of("a b a", replacements)


def test_changes_apply_in_turn() -> None:
    assert edit_command.changes_of("a b c", ["b=>", "c=>dd", "dd=>e=>f"]) == [(2, 3, ""), (3, 4, "dd"), (3, 5, "e=>f")]
