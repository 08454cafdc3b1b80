"""What the benchmarks' tables compute: intervals, tests of pairs, and the words that figures give."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_intervals_and_tests_of_pairs() -> None:
    import common

    assert common.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert common.wilson(0, 40) == pytest.approx((0.0, 0.0876), abs=1e-4)
    assert common.mcnemar([True] * 9, [False] * 9) == 2 / 2**9
    assert common.mcnemar([True, False, True], [True, False, False]) == 1
    mean, low, high = common.difference([1.0] * 30 + [0.0] * 10, [0.0] * 20 + [1.0] * 10 + [0.0] * 10)
    assert mean == 0.5 and 0.3 < low < 0.37 and 0.63 < high < 0.7  # a standard error of 0.079
    assert common.difference([1.0, 1.0], [1.0, 1.0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "larger_is_better", "said"),
    [
        (0.1, 0.2, True, "ours is better than theirs"),
        (-0.2, -0.1, True, "theirs is better than ours"),
        (0.1, 0.2, False, "theirs is better than ours"),
        (-0.2, -0.1, False, "ours is better than theirs"),
        (-0.1, 0.2, True, "no difference between ours and theirs is shown"),
        (0.0, 0.0, False, "no difference between ours and theirs is shown"),
    ],
)
def test_the_figures_give_the_words(low: float, high: float, larger_is_better: bool, said: str) -> None:
    import common

    assert common.verdict("ours", "theirs", low, high, larger_is_better) == said


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
@pytest.mark.parametrize(
    ("hidden", "kind"),
    [
        ("candidate( [1, 'a'] ) == 1\n    assert candidate(2) == 2\n    assert candidate(3) == 3", "all"),
        ("candidate([1, 'a']) == 1", "some"),
        ("candidate([1]) == 1", "none"),
    ],
)
def test_examples_among_the_hidden_tests(hidden: str, kind: str) -> None:
    from search_humaneval import repeated

    prompt = 'def f(a):\n    """\n    >>> f([1, "a"])\n    1\n    >>> f(2)\n    2\n    """\n'
    problem = {"prompt": prompt, "test": f"def check(candidate):\n    assert {hidden}\n", "entry_point": "f"}
    assert repeated(json.dumps(problem)) == kind
    assert repeated(json.dumps(problem | {"prompt": "def f(a):\n"})) == "no example"
