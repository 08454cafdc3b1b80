"""The command line, run as a user runs it, and its mistakes in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.cli.conftest import Main


def unspool(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unspool", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
        check=False,
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("unspool: "), result.stderr
    return lines[0]


def test_help_teaches_and_names_every_command() -> None:
    text = unspool("--help").stdout
    assert all(command in text for command in ("generate", "models", "methods", "calibrate"))
    assert "Examples" in unspool("generate", "--help").stdout


def test_methods_are_listed_and_filtered() -> None:
    rows = json.loads(unspool("methods", "--json").stdout)
    assert {"auto", "plain", "token_recycling", "lossless"} <= {row["name"] for row in rows}
    assert next(row for row in rows if row["name"] == "token_recycling")["options"] == {"k": 8, "nodes": 80}
    rows = json.loads(unspool("methods", "--json", "--guarantee", "same distribution").stdout)
    assert [row["name"] for row in rows] == ["lossless"]
    assert "did you mean 'drafter'" in one_line(unspool("methods", "--kind", "draftr"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--method", "plian", "x"), "did you mean 'plain'"),
        (("generate", "-m", "smolm2-135m", "x"), "did you mean 'smollm2-135m'"),
        (("generate", "--temperature", "-1", "x"), "temperature"),
        (("generate", "--max-new-tokens", "0", "x"), "max_new_tokens"),
        (("generate", "--acceptance", "lossles", "x"), "did you mean 'lossless'"),
        (("generate", "-m", "missing.gguf", "x"), "no such file"),
        (("generate", ""), "prompt is empty"),
        (("generate",), "prompt is empty"),
        (("generate", "-f", "missing.txt"), "cannot read missing.txt"),
        (("generate", "x", "-f", "missing.txt"), "use one of them"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    arguments: tuple[str, ...], message: str, main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path))
    code, out, error = main(*arguments)
    assert (code, out) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("unspool: ") and message in line
    assert not any(path.suffix in (".bin", ".gguf") for path in tmp_path.rglob("*"))


@pytest.mark.model
def test_generate_streams_the_text_and_then_one_line() -> None:
    result = unspool("generate", "--method", "plain", "--max-new-tokens", "8", stdin="Say hello.")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert "8 tokens · " in result.stderr.splitlines()[-1] and "plain" in result.stderr
    result = unspool("generate", "--method", "plain", "--max-new-tokens", "8", "--json", "Say hello.")
    assert json.loads(result.stdout)["statistics"]["passes"] == 8


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "unspool", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        # A background job of a shell inherits an ignored SIGINT; a user's terminal does not.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.model
def test_ctrl_c_ends_generation_with_130() -> None:
    arguments = ("generate", "--method", "plain", "--max-new-tokens", "4000", "--no-chat", "Once")
    with started(*arguments) as process:
        assert process.stdout is not None
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_ctrl_c_during_conversion_leaves_nothing_half_written(random_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with started("generate", "-m", str(random_model), "--method", "plain", "x", UNSPOOL_CACHE=str(cache)) as process:
        assert process.stderr is not None
        while "tracing" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert not [path for path in (cache / "converted").rglob("*") if path.is_file()]
