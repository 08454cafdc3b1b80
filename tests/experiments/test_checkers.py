"""What experiments judge answers by, and how they count."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from unspool import experiments
from unspool.errors import UnspoolError
from unspool.experiments import _architecture_row as architecture
from unspool.experiments import _code_loops as loops
from unspool.experiments._humaneval import overlap
from unspool.experiments._made_up_package import library
from unspool.experiments._package_questions import f1, questions
from unspool.reproduce.setup import Setup

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@LINUX
@pytest.mark.parametrize(
    ("hidden", "kind"),
    [
        ("candidate( [1, 'a'] ) == 1\n    assert candidate(2) == 2\n    assert candidate(3) == 3", "all"),
        ("candidate([1, 'a']) == 1", "some"),
        ("candidate([1]) == 1", "none"),
    ],
)
def test_examples_among_the_hidden_tests(hidden: str, kind: str) -> None:
    prompt = 'def f(a):\n    """\n    >>> f([1, "a"])\n    1\n    >>> f(2)\n    2\n    """\n'
    problem = {"prompt": prompt, "test": f"def check(candidate):\n    assert {hidden}\n", "entry_point": "f"}
    assert overlap(json.dumps(problem)) == kind
    assert overlap(json.dumps(problem | {"prompt": "def f(a):\n"})) == "no example"


def test_a_line_repeats_text_or_only_structure() -> None:
    prompt = "a = f(1)\n"
    assert loops.repeated(prompt, "a = f(1)\n") == (1, 1)
    assert loops.repeated(prompt, "b = g(2)\n") == (0, 1)
    assert loops.repeated(prompt, "    b = g(2)\n") == (0, 0), "another column is another structure"
    assert loops.repeated(prompt, "b = g(2, 3)\nb = g(4, 5)\n") == (0, 0.5), "the output repeats itself as well"


@LINUX
def test_a_table_is_right_if_its_longest_program_passes() -> None:
    digits = next(task for task in loops.TABLES if task.name == "digits")
    names = ("four", "five", "six", "seven", "eight", "nine")
    rest = "".join(f'\n    {i}: "{name}",' for i, name in enumerate(names, 4))
    assert loops.right(digits, f"{rest}\n}}\nprint(NAMES[")
    assert not loops.right(digits, rest.replace("eight", "ate") + "\n}\n")


def test_answers_are_compared_as_squad_does() -> None:
    assert f1("The array_like.", "array_like") == 1
    assert f1("int or float", "int") == pytest.approx(0.5)
    assert f1("", "int") == 0


def test_questions_alternate_and_their_answers_are_in_the_passage() -> None:
    found = questions(20)
    assert len({question.passage for question in found}) == 20
    assert all(question.answer in question.passage for question in found)
    assert sum(question.kind in ("parameter", "returns") for question in found) == 10
    assert questions(10) == found[:10], "fewer are the first of more"


def test_known_members_are_those_of_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = library(0)
    for name, text in made.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    scope: dict[str, object] = {}
    for site in made.sites[::7]:
        target = site.code.rpartition("= ")[2]
        exec(f"{site.code}\nfound = {target}", scope)
        assert type(scope["found"]).__name__ == site.owner and site.members == set(dir(scope["found"]))
    for module in [name for name in sys.modules if name.partition(".")[0] == "works"]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("wrong", ["plain", "prompt_lookup"])
def test_a_fault_of_one_method_is_the_rows(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Result:
        logprobs = (-1.0,)

        def __init__(self, token: int) -> None:
            self.token_ids = [token]

    class Stub:
        class language_model:  # noqa: N801  # stands for an attribute
            max_length = 256

        def generate(self, prompt: list[int], method: str, **options: object) -> Result:
            return Result(2 if method == wrong else 1)

    monkeypatch.setattr("unspool.decoding.load.load", lambda name, **options: Stub())
    monkeypatch.setattr(architecture, "greedy", lambda model, prompt: ([1], [-1.0]))
    outcome = architecture._outcome(None, tmp_path, "transformers")
    assert outcome == "WRONG tokens" and architecture.is_fault(outcome)


@pytest.mark.parametrize("name", ["architectures", "gguf_types"])
def test_a_model_that_would_not_be_used_is_refused(name: str) -> None:
    with pytest.raises(UnspoolError, match="leave --model out"):
        experiments.find(name).cases(Setup("toy", 2, quick=True))


@LINUX
def test_problems_need_hidden_tests() -> None:
    with pytest.raises(UnspoolError, match="without hidden tests"):
        experiments.find("plan").cases(Setup("toy", 2, suite="code-edit"))
