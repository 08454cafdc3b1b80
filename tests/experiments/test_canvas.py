"""Settings are chosen on the first half of the questions and compared on the second, at equal passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas_watch import stable

Row = dict[str, Any]


def row(line: str, setting: str, right: str, passes: str, task: str = "one") -> Row:
    return {"line": line, "setting": setting, "task": task, "right": right, "passes": passes}


def test_the_first_half_of_each_task_chooses() -> None:
    rows = [row("a", "x", "1100", "1 2 3 4"), row("a", "x", "010", "5 6 7", "two")]
    (found,) = compare.scored(rows)["a"]
    assert found.first.right.tolist() == [1, 1, 0, 1] and found.first.passes.tolist() == [1, 2, 5, 6]
    assert found.second.right.tolist() == [0, 0, 0] and found.second.passes.tolist() == [3, 4, 7]


def test_within_takes_the_fewest_passes_of_small_loss() -> None:
    reference = row(canvas.ONE_BY_ONE, "r", "1" * 200, " ".join(["9"] * 200))
    good = row("a", "good", "1" * 98 + "00" + "0" * 100, " ".join(["3"] * 200))
    bad = row("a", "bad", "1" * 97 + "000" + "1" * 100, " ".join(["2"] * 200))
    found = compare.scored([reference, good, bad])
    assert compare.within(found["a"], found[canvas.ONE_BY_ONE][0]).setting == "good"
    figures = compare.against_reference(found, "a")
    name = compare.chosen("a")
    assert figures[compare.kept(name)].value == -1 and figures[compare.fewer(name)].value == 3
    assert figures[compare.kept(name)].count == 100, "the reported half alone"
    assert compare.against_reference(found, "a", "bad")[compare.kept("a")].value == 0, "the paper's setting"
    assert compare.within([found["a"][1]], found[canvas.ONE_BY_ONE][0]).setting == "bad", "the most accurate one"


def test_the_control_is_mixed_to_equal_passes() -> None:
    control = [
        row("c", "few", "0000", "2 2 2 4"),
        row("c", "beaten", "0000", "4 4 4 4"),
        row("c", "many", "1110", "6 6 6 8"),
    ]
    ours = row("a", "x", "1111", "3 3 3 3")
    found = compare.scored([*control, ours])
    mixture = compare.mixed(found["c"], 3)
    assert mixture.first.cost == 3 and mixture.first.accuracy == pytest.approx(0.25)
    assert mixture.second.right.tolist() == [0.25, 0] and mixture.second.passes.tolist() == [3, 5]
    assert compare.mixed(found["c"], 1).setting == "few" and compare.mixed(found["c"], 9).setting == "many"
    figures = compare.compared(found, "a", "c")
    assert figures[compare.gain("a", "c")].value == pytest.approx(0.875)


def test_a_setting_too_bad_to_use_is_not_compared() -> None:
    control = [row("c", "few", "0" * 20, " ".join(["1"] * 20)), row("c", "many", "1" * 20, " ".join(["3"] * 20))]
    lucky = row("a", "lucky", "1" * 8 + "00" + "1" * 10, " ".join(["1"] * 20))  # gains most, but loses two in ten
    usable = row("a", "usable", "1" * 20, " ".join(["2"] * 20))
    found = compare.scored([*control, lucky, usable])
    assert compare.strongest(found["a"], found["c"]).setting == "usable"


def test_a_prediction_is_stable_from_its_last_change_on() -> None:
    predicted = np.array([[1, 5, 9], [2, 5, 7], [2, 6, 9], [2, 5, 8]])
    since = stable(predicted, np.array([2, 5, 9]), np.array([2, 3, 2]))
    assert since.tolist() == [1, 3, 2], "what a slot predicts after its commit does not count"
