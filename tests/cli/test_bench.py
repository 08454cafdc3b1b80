"""``unspool bench``: mistakes, what is printed, Ctrl-C, and one small run of a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.bench.fakes import bench as made
from tests.bench.fakes import run
from unspool.bench import benchmark as module
from unspool.bench.result import Bench
from unspool.cli.bench import bench
from unspool.errors import UnspoolError

APP = typer.Typer()
APP.command("bench")(bench)
APP.command("other")(lambda: None)  # with a second command, "bench" has to be named, as in the whole program


def unspool(*arguments: str) -> Result:
    return CliRunner().invoke(APP, ["bench", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "auot"), "did you mean 'auto'"),
        (("--methods", "auto@int5"), "unknown weight format 'int5'"),
        (("--weights", "int9"), "unknown weight format 'int9'"),
        (("--peers", "lama_cpp"), "did you mean 'llama_cpp'"),
        (("--suite", "mixd"), "did you mean 'mixed'"),
        (("--suite", "missing.txt"), "cannot read missing.txt"),
        (("-m", "smolm2-135m"), "did you mean 'smollm2-135m'"),
        (("--temperature", "-1"), "temperature must be at least 0"),
        (("--temperature", "0.5", "--peers", "llama_cpp"), "peers are compared only at temperature 0"),
        (("--json", "missing/r.json"), "cannot write missing/r.json"),
        (("--html", "missing/r.html"), "cannot write missing/r.html"),
    ],
)
def test_mistakes_are_told_before_any_work(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    result = unspool(*arguments)
    assert isinstance(result.exception, UnspoolError) and message in str(result.exception)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def result_of(**values: Any) -> Bench:
    speeds = (("plain", 10), ("auto", 15), ("suffix", 8))
    runs = [
        run(name, "code-edit-01", speed, 1.0, passes=speed, quality=quality)
        for (name, speed), quality in zip(speeds, (1.0, 1.0, 0.0), strict=True)
    ]
    verdicts = {name: {"identical": 1, "ties": 0, "faults": 0} for name in ("auto", "suffix")}
    return made(runs, verdicts=verdicts, memory={"plain": 5_000_000}, **values)


def test_the_tables_say_what_is_slower_and_who_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "benchmark", lambda *_: result_of(left_out={"llama_cpp": "not installed; pip [peers]"}))
    text = unspool().stdout
    assert "suffix is slower than plain decoding: 0.80 times its speed" in text
    assert "auto is slower" not in text and "plain is slower" not in text
    assert "llama_cpp is left out: not installed; pip [peers]" in text
    assert "1.50/1.50" in text and "0.80/0.80" in text and "5.0 MB" in text
    assert "bonus included" in text and "mean of the per-prompt ratios / ratio of totals" in " ".join(text.split())


def test_options_reach_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def benchmark(*arguments: Any) -> Bench:
        given.extend(arguments)
        return result_of()

    monkeypatch.setattr(module, "benchmark", benchmark)
    result = unspool(
        *(
            "-m",
            "smollm2-135m",
            "--methods",
            "auto, plain@int4",
            "--weights",
            "fp32",
            "--suite",
            "json",
            "--limit",
            "3",
        ),
        *("--repeats", "2", "--max-new-tokens", "9", "--temperature", "0.7", "--seed", "5", "--threads", "4"),
        *("--json", str(tmp_path / "r.json"), "--spec-bench-answers", str(tmp_path / "answers")),
    )
    assert result.exit_code == 0, result.output
    assert given[0] == module.Options("smollm2-135m", ["auto", "plain@int4"], [], "fp32", "json", 3, 2, 9, 0.7, 5, 4)
    assert given[3] == tmp_path / "r.json"
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == [
        "tiny-auto.jsonl",
        "tiny-plain.jsonl",
        "tiny-suffix.jsonl",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"), [((), "no figures were kept"), (("--json", "r.json"), "run the same command to resume")]
)
def test_ctrl_c_says_whether_the_runs_are_kept(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def benchmark(*_: Any) -> Bench:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "benchmark", benchmark)
    result = unspool(*arguments)
    assert result.exit_code == 130
    assert f"interrupted; {message}" in result.stderr


def test_a_small_run_of_a_model_on_disk(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not SmolLM2: measuring its costs anew, which a benchmark does, takes a minute of a processor."""
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "result.json"
    suite = tmp_path / "suite.jsonl"
    prompts = [{"id": f"p{n}", "category": f"kind {n}", "prompt": f"Count to {n}."} for n in (5, 9)]
    suite.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    arguments = ("-m", str(random_model), "--methods", "suffix", "--suite", str(suite), "--max-new-tokens", "8")
    result = unspool(*arguments, "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "suffix" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "random", "result.json", "suite.jsonl"}
    loaded = Bench.from_json(json.loads(file.read_text()))
    assert sorted((one.contestant, one.prompt) for one in loaded.runs) == [
        *(("plain", "p5"), ("plain", "p9"), ("suffix", "p5"), ("suffix", "p9"))
    ]
    assert loaded.verdicts == {"suffix": {"identical": 2, "ties": 0, "faults": 0}}
    assert loaded.settings["suffix"]["backend"] == "openvino" and loaded.settings["plain"]["weights"] == "int8"
    assert loaded.memory["plain"] > 100e6 and loaded.curve is not None and loaded.curve["nodes"][0] == 1
    for one in loaded.runs:
        assert one.timed_tokens and one.seconds > 0 and one.text and len(one.token_ids) <= 8
