"""The checks themselves: each kind has some, right methods pass, and every planted fault is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conformance.faulty_methods import FAULTS
from tests.installed import on_path, write
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.cli import app
from unspool.conformance import check, span
from unspool.conformance.check import CheckFailed, checks, run
from unspool.conformance.drafter import EOS
from unspool.conformance.drafter import plain as plain_text
from unspool.conformance.stubs import EmptyDrafter, EosDrafter, OracleDrafter, RandomDrafter
from unspool.engine.contracts import Context
from unspool.engine.method import DRAFTER, EDIT, KINDS, SPAN, Method, NoOptions
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree


def stub(build: Any) -> Method[Any, Any]:
    return Method(DRAFTER, "identical", "A stub.", "none", NoOptions, build, name="stub")


def test_every_kind_has_checks_of_its_own_and_each_says_what_must_hold() -> None:
    assert set(check.MODULES) == set(KINDS.values())
    for row in methods.of_kind():
        names = [one.__name__ for one in checks(row)]
        assert len(names) > 3 and len(set(names)) == len(names), row.name
        assert all(check.rule_of(one).endswith(".") and len(check.rule_of(one)) < 120 for one in checks(row))


class Foreseeing(OracleDrafter):
    """Drafts what plain decoding makes of the prompt; ``end``: then end tokens, as far as the budget goes."""

    def __init__(self, toy: ToyModel, end: bool) -> None:
        super().__init__(())
        self._toy, self._end = ToyModel(toy.table), end  # the model itself is in the middle of a pass

    def start(self, context: Context) -> None:
        options = GenerationOptions(max_new_tokens=60, temperature=context.temperature, seed=context.seed)
        self._text = (*context.tokens, *plain_text(self._toy, list(context.tokens), options))

    def propose(self, context: Context, budget: int) -> TokenTree:
        if self._end:
            return EosDrafter(EOS % self._toy.vocab_size, self._text).propose(context, budget)
        return TokenTree.chain((context.tokens[-1], *self._text[len(context.tokens) :][: budget - 1]))


@pytest.mark.parametrize(
    "build",
    [
        lambda r, _: EmptyDrafter(),
        lambda r, _: RandomDrafter(r.model.vocab_size, seed=5),
        lambda r, _: Foreseeing(r.model, end=False),
        lambda r, _: Foreseeing(r.model, end=True),
    ],
    ids=["empty", "random", "perfect", "end of text"],
)
def test_whatever_is_drafted_the_checks_pass(build: Any) -> None:
    failed = {outcome.check: outcome.reason for outcome in run(stub(build)) if not outcome.passed}
    assert failed == {}


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[None]:
    directory = tmp_path / "site"
    write(directory, "faulty", {name: f"tests.conformance.faulty_methods:{name}" for name in FAULTS}, [])
    with on_path(directory):
        yield


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_refused_with_the_reason(faulty: None, name: str) -> None:
    row = methods.named(name)
    (one,) = [one for one in checks(row) if one.__name__ == FAULTS[name][1]]
    with pytest.raises(CheckFailed) as caught:
        check.checked(row, one)
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["untruthful", "no_path", "in_place", "shared", "uncounted", "restless_policy"])
def test_the_command_refuses_them(faulty: None, name: str) -> None:
    result = CliRunner().invoke(app, ["check", name, "--json"])
    assert result.exit_code == 1, result.output
    (report,) = json.loads(result.stdout)
    assert report["name"] == name and not report["passed"]
    failed = {one["name"]: one["reason"] for one in report["checks"] if not one["passed"]}
    assert FAULTS[name][1] in failed, failed
    assert all(reason and "\n" not in reason for reason in failed.values()), failed


def test_every_kind_that_others_can_add_has_a_planted_fault() -> None:
    assert {row.kind for row, _ in FAULTS.values()} == set(KINDS.values()) - {SPAN, EDIT}


@contextmanager
def replaced(verb: str, wrong: Any) -> Iterator[None]:
    from importlib import import_module

    module = import_module(f"unspool.decoding.{verb}")
    right = getattr(module, verb)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, verb, lambda *given, **options: wrong(right(*given, **options)))
        yield


def test_faults_of_a_span_search_and_of_an_edit_are_refused() -> None:
    (row,) = methods.of_kind(SPAN)
    with replaced(row.name, lambda found: replace(found, passes=found.passes + 1)), pytest.raises(CheckFailed):
        span.figures_are_those_that_the_model_counts(row)
    with replaced(row.name, lambda found: replace(found, spans=[replace(found.spans[0], start=0)])):
        assert "spans_stand_in_the_passage" in {outcome.check for outcome in run(row) if not outcome.passed}
    (row,) = methods.of_kind(EDIT)

    def forgetful(text: Any) -> Any:
        generate = text.generate
        text.generate = lambda **options: (text.replace(0, 0, "x"), generate(**options))[1]
        return text

    with replaced(row.name, forgetful):
        assert "edits_do_not_depend_on_one_another" in {outcome.check for outcome in run(row) if not outcome.passed}


def test_a_method_that_raises_fails_the_check_and_the_others_go_on() -> None:
    def broken(resources: Any, options: Any) -> Any:
        raise KeyError("gone")

    outcomes = list(run(stub(broken)))
    assert len(outcomes) == len(checks(stub(broken))) and outcomes[0].passed
    assert "KeyError: 'gone'" in outcomes[-1].reason and "test_checks.py:" in outcomes[-1].reason


def test_mistakes_in_the_call_are_refused_before_any_work() -> None:
    for arguments, message in (
        (["sufix"], "did you mean 'suffix'"),
        (["suffix", "suffix"], "suffix is named twice"),
    ):
        result = CliRunner().invoke(app, ["check", *arguments])
        assert message in str(result.exception) and not result.stdout


def test_the_command_prints_what_was_checked() -> None:
    result = CliRunner().invoke(app, ["check", "prompt_lookup", "static_stop"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("prompt_lookup (drafter): ") and lines[1].startswith("static_stop (stop): ")
    assert all(" checks passed" in line for line in lines)
