"""Results come back from their files as they were written; anything else is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report import results
from unspool.cli.report import report
from unspool.errors import UnspoolError
from unspool.report.read import read


def written(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
    return path


@pytest.mark.parametrize("result", [results.bench(prompts=1), results.proof()], ids=["bench", "proof"])
def test_results_come_back(tmp_path: Path, result: Any) -> None:
    assert read(written(tmp_path / "result.json", result.to_json())) == result


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not JSON .*make it again"),
        ([], "its kind is None"),
        ({"kind": "trace", "version": 1}, "its kind is 'trace', not one of"),
        ({"kind": "proof", "version": 2}, "version 2 of its format and this unspool reads 1"),
        ({"kind": "proof", "version": 1, "about": {}}, "damaged .*command.*make it again"),
        ({**results.bench(prompts=1).to_json(), "runs": [{"prompt": "x"}]}, "damaged"),
        ({**results.proof().to_json(), "rows": 3}, "damaged"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    path = written(tmp_path / "odd.json", data)
    with pytest.raises(UnspoolError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match="No such file"):
        read(tmp_path / "none.json")


def test_the_command_writes_all_results_into_one_file(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "proof.json", results.proof().to_json()),
        written(tmp_path / "bench.json", results.bench(prompts=1).to_json()),
    ]
    report(files, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Proof: smollm2-135m" in text and "Benchmark: qwen2.5-coder-0.5b on mixed" in text


def test_the_command_refuses_an_odd_file_before_it_writes(tmp_path: Path) -> None:
    odd = written(tmp_path / "odd.json", {"kind": "bench", "version": 7})
    with pytest.raises(UnspoolError, match="version 7"):
        report([odd], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
