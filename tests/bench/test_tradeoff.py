"""Accuracy against passes: what is counted, the oracle, the means, and the report and command that show them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.trained import unmask_filter
from unspool import methods
from unspool.bench.tradeoff import (
    ORACLE,
    Point,
    Setting,
    Tradeoff,
    best,
    left_out,
    means,
    measure,
    oracle,
    picked,
    swept,
)
from unspool.cli import app
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.engine.method import UNMASK
from unspool.errors import UnspoolError
from unspool.methods._compose import chosen
from unspool.models.diffusion import CANVAS
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions, train
from unspool.report.page import render
from unspool.report.read import read
from unspool.report.tradeoff import options_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tradeoff") / "untrained"
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    train(path, CanvasTrainingOptions(**tiny, max_steps=1, batch_size=2))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> DiffusionModel:
    return load(str(directory))


def point(line: str, right: list[bool], passes: list[int], task: str = "t", dependent: bool = False) -> Point:
    return Point(line, line, task, dependent, right, passes, {1: sum(passes)})


def test_passes_and_commits_are_those_of_the_runs(model: DiffusionModel) -> None:
    setting = Setting("top_k", "top_k:tokens_per_step=5")
    points = measure(model, SHORT, [setting], 3)
    assert [p.task for p in points] == [task.name for task in SHORT.tasks]
    assert all(p.passes == [5, 5, 5] and p.commits == {4: 3, 5: 12} for p in points)
    assert measure(model, SHORT, [setting], 3) == points, "questions are the same every time"


def test_the_oracle_takes_the_fewest_passes_that_are_right() -> None:
    loose, strict = (
        point("threshold", [True, False, False], [2, 2, 3]),
        point("threshold", [True, True, False], [5, 6, 4]),
    )
    (found,) = oracle([loose, strict, point("factor", [True] * 3, [1, 1, 1])])
    assert found.line == ORACLE
    assert found.right == [True, True, False]
    assert found.passes == [2, 6, 3]


def test_every_task_counts_the_same_and_kinds_are_apart() -> None:
    points = [
        point("top_k", [True, True], [8, 8], "a"),
        point("top_k", [False, False, False, True], [4, 4, 4, 4], "b"),
        point("top_k", [False], [1], "c", dependent=True),
    ]
    (mean,) = means(points, dependent=False)
    assert mean.accuracy == pytest.approx((1 + 0.25) / 2)
    assert mean.passes == 6 and mean.commits == {1: 32}
    assert means(points, dependent=True)[0].accuracy == 0


def test_the_best_of_a_line_loses_no_more_than_it_may() -> None:
    def line(name: str, right: int, passes: int) -> Point:
        return point(name, [True] * right + [False] * (100 - right), [passes] * 100)

    found = means([line("top_k", 90, 24), line("threshold", 89, 6), line("factor", 88, 3)], dependent=False)
    kept = best(found, loss=0.01)
    assert {name: mean.passes for name, mean in kept.items()} == {"top_k": 24, "threshold": 6}


def test_settings_are_those_of_the_rows_and_the_reference_comes_first() -> None:
    found = swept()
    assert len(set(found)) == len(found)
    assert found[0] == Setting("top_k", "top_k")
    assert Setting("credit, sparse", "credit:kept=8+threshold:threshold=0.95") in found
    rows = methods.of_kind(*(kind for kind in methods.KINDS.values() if kind.on_canvas))
    assert {row.name for row in rows} <= {part.row.name for setting in found for part in chosen(setting.method)}


def test_a_method_that_names_no_settings_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = [replace(methods.find("factor", UNMASK), sweep={}, trial=trial) for trial in ({}, {"factor": 2.0})]
    monkeypatch.setattr(methods, "of_kind", lambda *kinds: bare)
    assert [setting.method for setting in swept()] == ["factor", "factor:factor=2.0"]


def test_what_is_picked_are_beginnings_of_lines_and_specs() -> None:
    found = picked(["credit", "factor:factor=1.0+adablock"])
    lines = list(dict.fromkeys(setting.line for setting in found))
    own = "factor:factor=1.0+adablock"
    assert lines == ["top_k", "top_k, random order", "credit", "credit, sparse", "credit, parameter-free", own]
    assert found[-1] == Setting(own, "factor+adablock")


def test_what_does_not_fit_the_model_is_left_out_with_the_reason(model: DiffusionModel, tmp_path: Path) -> None:
    odd = Setting("odd", "fixed_blocks:block_length=7")
    late = Setting("late", "prophet(answer=(20, 99))")
    found = left_out([*swept(), odd, late], model)
    assert set(found) == {"learn2pd, blocks of 8", "odd", "late"}
    assert "unspool train learn2pd" in found["learn2pd, blocks of 8"] and "7" in found["odd"]
    flat = np.zeros((8, 8), np.float32)
    unmask_filter(tmp_path, flat, flat[0], flat, flat[0])
    trained = DiffusionModel(model.denoiser, model.tokenizer, "t", canvas_length=24, directory=tmp_path)
    assert left_out(swept(), trained) == {}


def test_an_option_answer_is_given_the_slots_of_the_answer(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    generate = model.generate

    def watched(prompts: Any, *, method: str) -> Any:
        seen.append(method)
        return generate(prompts, method=method)

    monkeypatch.setattr(model, "generate", watched)
    given = [Setting("a", "prophet:high=9.0+top_k"), Setting("b", "prophet(answer=(1, 2))"), Setting("c", "top_k")]
    points = measure(model, SHORT, given, 1)
    known = [task.answer for task in SHORT.tasks]
    assert any(known) and not all(known)
    answered = [
        f"prophet(answer={answer!r}, high=9.0)+top_k" if answer else "prophet:high=9.0+top_k" for answer in known
    ]
    assert seen == answered + ["prophet(answer=(1, 2))"] * len(known) + ["top_k"] * len(known)
    assert {point.method for point in points if point.line == "a"} == {"prophet:high=9.0+top_k"}


def test_version_1_had_options_apart(tmp_path: Path) -> None:
    rest = {"task": "t", "dependent": False, "right": [True], "passes": [1], "commits": {"24": 1}}
    options: dict[str, Any] = {"credit": {"kept": 8}, "threshold": {"threshold": 0.9}}
    old = [
        {"line": "credit, sparse", "method": "credit+threshold", "options": options, **rest},
        {"line": "oracle", "method": "oracle", "options": {}, **rest},
    ]
    data = {"kind": "frontier", "version": 1, "about": {}, "command": "unspool frontier -m frontier", "model": "m"}
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**data, "slots": 24, "points": old}))
    found = read(path)
    assert isinstance(found, Tradeoff)
    assert [point.method for point in found.points] == ["credit:kept=8+threshold", ""]
    assert found.command == "unspool tradeoff -m frontier"


def test_options_of_a_line_are_shown_where_they_are_the_defaults_too() -> None:
    specs = ["top_k", "top_k:tokens_per_step=4", "prophet:high=9.0+top_k"]
    points = [replace(point("a", [True], [1]), line=spec[0], method=spec) for spec in specs]
    assert options_of(points) == {
        ("t", specs[0]): "tokens_per_step=1",
        ("t", specs[1]): "tokens_per_step=4",
        ("p", specs[2]): "high=9.0",
    }


def test_every_line_runs_and_the_report_shows_it(model: DiffusionModel, tmp_path: Path) -> None:
    whole = swept()
    unfit = left_out(whole, model)
    whole = [setting for setting in whole if setting.line not in unfit]
    settings = list({s.line: s for s in reversed(whole)}.values())  # the first of each line
    about = {"date": "2026-01-02", "machine": {"cpu": "Z80"}, "versions": {"unspool": "1"}}
    result = Tradeoff(about, "unspool tradeoff", "tiny", 24, measure(model, SHORT, settings, 1))
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps(result.to_json()))
    again = read(path)
    assert again == result
    page = render([again])
    assert "Tasks with several right answers" in page and "times fewer passes" in page
    for setting in settings:
        assert f"{setting.line} " in page


def test_the_command(directory: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "f.json"), "--html", str(tmp_path / "f.html")]
    arguments = ["tradeoff", "-m", str(directory), "--methods", "factor", "--questions", "1", *files]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    lines = {p["line"] for p in json.loads((tmp_path / "f.json").read_text())["points"]}
    assert lines == {"factor", "top_k", "top_k, random order"}
    assert "<svg" in (tmp_path / "f.html").read_text()
    assert "fewest passes" in result.stdout


def test_the_command_says_what_it_leaves_out_and_refuses_it_when_it_is_asked_for(directory: Path) -> None:
    arguments = ["tradeoff", "-m", str(directory), "--questions", "1"]
    result = CliRunner().invoke(app, [*arguments, "--methods", "l"])
    assert result.exit_code == 0, result.output
    assert "learn2pd, blocks of 8 is left out: learn2pd needs a filter" in result.stderr
    result = CliRunner().invoke(app, [*arguments, "--methods", "localleap,learn2pd"])
    assert isinstance(result.exception, UnspoolError)
    assert "learn2pd cannot be measured with this model: learn2pd needs a filter" in str(result.exception)


def test_mistakes_are_told_before_any_work(directory: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["-m", str(directory), "--methods", "suffix"], "unknown method for canvases 'suffix'"),
        (["-m", "nothing"], "no such diffusion model: nothing"),
        (["-m", str(directory), "--json", str(tmp_path / "no" / "f.json")], "cannot write"),
    ):
        result = CliRunner().invoke(app, ["tradeoff", *arguments])
        assert isinstance(result.exception, UnspoolError) and message in str(result.exception)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / CANVAS).write_text('{"mask_id": 1}')
    result = CliRunner().invoke(app, ["tradeoff", "-m", str(foreign)])
    assert "was not trained on tasks" in str(result.exception)
