"""Tasks: every example is right by its own checker and fits, and what is wrong is found wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from unspool.diffusion import tasks
from unspool.diffusion.tasks import Example, Task

BY_NAME = {task.name: task for task in tasks.SHORT}


@pytest.mark.parametrize("task", tasks.SHORT, ids=lambda task: task.name)
def test_examples_are_right_and_fit(task: Task) -> None:
    rng = np.random.default_rng(1)
    prompts: dict[str, set[str]] = {}
    for _ in range(400):
        example = task.sample(rng)
        assert example.prompt[0] == task.symbol
        assert task.right(example, example.answer)
        prompt, canvas = tasks.prompt_ids(example), tasks.canvas_ids(example)
        assert len(prompt) == tasks.PROMPT_LENGTH
        assert len(canvas) == tasks.CANVAS_LENGTH
        assert tasks.answer_of(canvas) == example.answer
        assert canvas[-1] == tasks.IDS[tasks.END], "no room for an end token"
        prompts.setdefault(" ".join(example.prompt), set()).add(" ".join(example.answer))
        # Whatever is cut off or put behind is wrong, and so is an answer to another question.
        for wrong in (example.answer[:-1], [*example.answer, "a"], []):
            if task.name != "chain" or wrong != [*example.answer, "a"]:
                assert not task.right(example, wrong)
    if not task.dependent:
        assert all(len(answers) == 1 for answers in prompts.values())


def test_the_vocabulary_holds_every_symbol_once() -> None:
    assert len(set(tasks.SYMBOLS)) == len(tasks.SYMBOLS)
    assert tasks.IDS[tasks.MASK] == 1


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
    words = {"NL": "\n", "IN": "    "}
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


def test_a_chain_is_judged_by_its_answer_slots() -> None:
    example = BY_NAME["chain"].sample(np.random.default_rng(3))
    first, end = tasks.ANSWER
    scribbled = ["_"] * first + example.answer[first:end]
    assert BY_NAME["chain"].right(example, scribbled)
    assert "".join(example.answer[first:end]).isdigit()


def test_sums_of_one_to_three_digits() -> None:
    rng = np.random.default_rng(5)
    lengths = Counter(len(BY_NAME["addition"].sample(rng).answer) for _ in range(500))
    assert set(lengths) == {1, 2, 3, 4}
