"""Tasks: every example is right by its own checker and fits, and what is wrong is found wrong."""

from __future__ import annotations

import numpy as np
import pytest

from unspool.recipes.tiny_diffusion import long_tasks
from unspool.recipes.tiny_diffusion.long_tasks import LONG
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.tasks import END, MASK, Example, Task, TaskSet

BY_NAME = {task.name: task for task in SHORT.tasks + LONG.tasks}


@pytest.mark.parametrize(
    ("tasks", "task"), [(s, task) for s in (SHORT, LONG) for task in s.tasks], ids=lambda x: getattr(x, "name", "")
)
def test_examples_are_right_and_fit(tasks: TaskSet, task: Task) -> None:
    rng = np.random.default_rng(1)
    prompts: dict[str, set[str]] = {}
    for _ in range(400):
        example = task.sample(rng)
        assert example.prompt[0] == task.symbol
        assert task.right(example, example.answer)
        prompt, canvas = tasks.prompt_ids(example.prompt), tasks.canvas_ids(example.answer)
        assert len(prompt) == tasks.prompt_length
        assert len(canvas) == tasks.canvas_length
        assert tasks.answer_of(canvas) == example.answer
        assert canvas[-1] == tasks.ids[END], "no room for an end token"
        prompts.setdefault(" ".join(example.prompt), set()).add(" ".join(example.answer))
        # Whatever is cut off or put behind is wrong, and so is an answer to another question.
        for wrong in (example.answer[:-1], [*example.answer, "a"], []):
            if task.answer is None or wrong != [*example.answer, "a"]:
                assert not task.right(example, wrong)
    if not task.dependent:
        assert all(len(answers) == 1 for answers in prompts.values())


@pytest.mark.parametrize("tasks", [SHORT, LONG])
def test_the_vocabulary_holds_every_symbol_once(tasks: TaskSet) -> None:
    assert len(set(tasks.vocabulary)) == len(tasks.vocabulary)
    assert tasks.ids[MASK] == 1


def asked(name: str, prompt: str, answer: str = "") -> Example:
    return Example([f"<{name}>", *prompt.split()], answer.split())


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "right"),
    [
        ("shuffle", "a b c", "b , a , c", True),
        ("shuffle", "a b c", "a , b , c", False),
        ("shuffle", "a b c", "b , b , c", False),
        ("shuffle", "a b c", "b , a", False),
        ("shuffle", "a b c", "b a , c", False),
        ("replace_random", "a b c , x", "a , x , c", True),
        ("replace_random", "a b c , x", "a , b , c", False),
        ("replace_random", "a b c , x", "x , b , x", False),
        ("replace_random", "a b c , x", "y , b , c", False),
        ("replace_random", "a b c , x", "a , x", False),
    ],
)
def test_lists_with_several_right_answers(name: str, prompt: str, answer: str, right: bool) -> None:
    assert BY_NAME[name].right(asked(name, prompt), answer.split()) == right


def code(text: str) -> list[str]:
    words = {"NL": "\n", "IN": "    ", "def": "def ", "return": "return ", "if": "if "}
    return [words.get(word, word) for word in text.split()]


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("f1 -", "def f1 ( a , b ) : NL IN return a - b", True),
        ("f1 +", "def f1 ( a , b ) : NL IN return b + a", True),
        ("f1 <", "def f1 ( a , b ) : NL IN if a < b : return a NL IN return b", True),
        ("f1 min", "def f1 ( a , b ) : NL IN if a < b : return a NL IN return b", True),
        ("f1 -", "def f1 ( a , b ) : NL IN return b - a", False),
        ("f1 -", "def f1 ( a , c ) : NL IN return a - b", False),
        ("f1 -", "def f1 ( a , a ) : NL IN return a - a", False),
        ("f1 -", "def f2 ( a , b ) : NL IN return a - b", False),
        ("f1 -", "def f1 ( a , b ) : NL IN return f1 ( a , b )", False),
        ("f1 -", "def f1 ( a , b ) : return a - b )", False),
        ("f1 max", "def f1 ( a , b ) : NL IN return max ( a , b , c )", False),
        ("f1 max", "def f1 ( a ) : NL IN return max ( a , a )", False),
        ("f1 +", "f1 = min", False),
    ],
)
def test_functions_are_run(prompt: str, answer: str, right: bool) -> None:
    assert BY_NAME["python_free"].right(asked("python_free", prompt), code(answer)) == right


def test_a_sum_with_its_working_is_judged_by_its_answer_slots() -> None:
    task = BY_NAME["chain"]
    example = task.sample(np.random.default_rng(3))
    assert task.answer is not None
    first, end = task.answer
    result = example.answer[first:end]
    assert int("".join(result)) == sum(int(digit) for digit in example.prompt[1:])
    assert task.right(example, ["_"] * first + result)
    assert not task.right(example, [*example.answer[:first], *result[::-1]]) or result == result[::-1]


def test_sums_of_one_to_three_digits_in_fixed_places() -> None:
    rng = np.random.default_rng(5)
    examples = [BY_NAME["addition"].sample(rng) for _ in range(500)]
    assert {len(e.prompt) for e in examples} == {8} and {len(e.answer) for e in examples} == {4}
    assert {len(str(int("".join(e.answer)))) for e in examples} == {1, 2, 3, 4}
    for e in examples:
        assert int("".join(e.answer)) == int("".join(e.prompt[1:4])) + int("".join(e.prompt[5:]))


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("f1 + *", "def f1 ( a , b ) : NL IN c = a + b NL IN d = c * a NL IN return d", True),
        ("f1 + *", "def f1 ( x , y ) : NL IN c = x + y NL IN c = c * x NL IN return c", True),
        ("f1 + *", "def f1 ( a , b ) : NL IN c = a + b NL IN d = c * b NL IN return d", False),
        ("f1 + *", "def f1 ( a , b ) : NL IN c = a + b NL IN d = e * a NL IN return d", False),
    ],
)
def test_programs_are_run(prompt: str, answer: str, right: bool) -> None:
    assert BY_NAME["program_free"].right(asked("program_free", prompt), code(answer)) == right


SQUARE = "1 2 3 4 NL 2 1 4 3 NL 3 4 1 2 NL 4 3 2 1"


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("_ " * 16, SQUARE, True),
        ("1 2 " + "_ " * 14, SQUARE, True),
        ("2 " + "_ " * 15, SQUARE, False),
        ("_ " * 16, SQUARE.replace("4 3 2 1", "4 3 1 2"), False),
        ("_ " * 16, SQUARE.replace(" NL", ""), False),
        ("_ " * 16, SQUARE.replace("1", "a"), False),
    ],
)
def test_latin_squares(prompt: str, answer: str, right: bool) -> None:
    assert BY_NAME["latin_free"].right(asked("latin_free", prompt), code(answer)) == right


def test_squares_with_one_completion_and_with_several() -> None:
    rng = np.random.default_rng(7)
    for name, least, most in (("latin", 1, 1), ("latin_free", 2, 576)):
        for _ in range(50):
            given = np.array([int(s) if s != "_" else 0 for s in BY_NAME[name].sample(rng).prompt[1:]])
            assert least <= long_tasks._completions(given) <= most
