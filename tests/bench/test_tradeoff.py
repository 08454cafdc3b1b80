"""Frontiers: what is counted, the oracle, the means, and the report and command that show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unspool.bench.tradeoff import ORACLE, Frontier, Point, Setting, best, means, measure, oracle, swept
from unspool.cli import app
from unspool.decoding.canvas import DiffusionModel, load_diffusion
from unspool.errors import UnspoolError
from unspool.models.diffusion import CANVAS
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions, train
from unspool.report.page import render
from unspool.report.read import read


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frontier") / "untrained"
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    train(path, CanvasTrainingOptions(**tiny, max_steps=1, batch_size=2))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> DiffusionModel:
    return load_diffusion(str(directory))


def point(line: str, right: list[bool], passes: list[int], task: str = "t", dependent: bool = False) -> Point:
    options = {"top_k": {"tokens_per_step": 1}} if line == "top_k" else {line: {"at": len(passes)}}
    return Point(line, line, options, task, dependent, right, passes, {1: sum(passes)})


def test_passes_and_commits_are_those_of_the_runs(model: DiffusionModel) -> None:
    setting = Setting("top_k", "top_k", {"top_k": {"tokens_per_step": 5}})
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


def test_every_line_runs_and_the_report_shows_it(model: DiffusionModel, tmp_path: Path) -> None:
    whole = swept(newlines=True, trained=False)
    assert len({f"{s.line} {s.options}" for s in whole}) == len(whole)
    settings = list({s.line: s for s in reversed(whole)}.values())  # the first of each line
    about = {"date": "2026-01-02", "machine": {"cpu": "Z80"}, "versions": {"unspool": "1"}}
    result = Frontier(about, "unspool frontier", "tiny", 24, measure(model, SHORT, settings, 1))
    path = tmp_path / "frontier.json"
    path.write_text(json.dumps(result.to_json()))
    again = read(path)
    assert isinstance(again, Frontier) and [p.commits for p in again.points] == [p.commits for p in result.points]
    page = render([again])
    assert "Tasks with several right answers" in page and "times fewer passes" in page
    for setting in settings:
        assert f"{setting.line} " in page


def test_the_command(directory: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "f.json"), "--html", str(tmp_path / "f.html")]
    arguments = ["frontier", "-m", str(directory), "--methods", "factor", "--questions", "1", *files]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    lines = {p["line"] for p in json.loads((tmp_path / "f.json").read_text())["points"]}
    assert lines == {"factor", "top_k", "top_k, random order"}
    assert "<svg" in (tmp_path / "f.html").read_text()
    assert "fewest passes" in result.stdout


def test_mistakes_are_told_before_any_work(directory: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["-m", str(directory), "--methods", "suffix"], "no line begins with 'suffix'"),
        (["-m", "nothing"], "no such diffusion model: nothing"),
        (["-m", str(directory), "--json", str(tmp_path / "no" / "f.json")], "cannot write"),
    ):
        result = CliRunner().invoke(app, ["frontier", *arguments])
        assert isinstance(result.exception, UnspoolError) and message in str(result.exception)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / CANVAS).write_text('{"mask_id": 1}')
    result = CliRunner().invoke(app, ["frontier", "-m", str(foreign)])
    assert "was not trained on tasks" in str(result.exception)
