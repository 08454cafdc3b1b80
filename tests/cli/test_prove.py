"""``unspool prove`` on the toy model: what it prints, writes and refuses, and its exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.proof import conftest
from tests.proof.conftest import Rounding, method, toy
from tests.proof.faults import KeepsRejected, OffByOne
from unspool.backends.toy import ToySession
from unspool.cli.prove import prove
from unspool.decoding import load as api
from unspool.decoding.model import Model
from unspool.errors import UnspoolError
from unspool.proof.result import Proof

install = conftest.install


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("0120120\n5\n2424\n")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, prompts: Path) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prove)
    loads = []

    def do(*arguments: str, session: type[ToySession] = ToySession, near_ties: bool = False) -> Any:
        def load(name: str | None, **options: Any) -> Model:
            loads.append(name)
            return toy(session, near_ties)

        monkeypatch.setattr(api, "load", load)
        given = [*([] if "--prompts" in arguments else ["--prompts", str(prompts)]), "--max-new-tokens", "30"]
        monkeypatch.setattr(sys, "argv", ["unspool", "prove", *given, *arguments])
        result = CliRunner().invoke(app, [*given, *arguments], env={"COLUMNS": "200"})
        result.loads = loads  # type: ignore[attr-defined]
        return result

    return do


def test_tables_tell_noise_results_and_that_all_is_well(run: Any) -> None:
    result = run("--methods", "suffix,lossless")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.split("│")[1:3] and line.split("│")[1].strip() == "64" for line in lines if "│" in line)
    row = next(line for line in lines if "suffix" in line and "0.8" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("suffix", "plain decoding", "0.8", "3", "3", "90", "0", "0", "0")
    ]
    assert "Differences" not in result.stdout
    assert lines[-1] == "0 faults, 0 ties"
    assert "suffix, temperature 0.8: 3 of 3" in result.stderr


def test_a_fault_ends_with_code_1_and_is_listed(run: Any, install: Any) -> None:
    install(method("planted", "acceptance", "identical", KeepsRejected))
    result = run("--methods", "planted", "--temperature", "0.8")
    assert result.exit_code == 1
    differences = result.stdout[result.stdout.index("Differences") :]
    assert "planted" in differences and "fault" in differences
    assert result.stdout.splitlines()[-1] == "3 faults, 0 ties"


def test_a_broken_backend_ends_with_code_1(run: Any) -> None:
    assert run("--methods", "suffix", session=OffByOne).exit_code == 1


def test_ties_end_with_code_0_and_are_listed(run: Any) -> None:
    result = run("--methods", "token_recycling", "--temperature", "0", session=Rounding, near_ties=True)
    assert result.exit_code == 0
    assert "tie" in result.stdout[result.stdout.index("Differences") :]


def test_json_is_the_proof_and_nothing_else(run: Any) -> None:
    result = run("--methods", "suffix", "--temperature", "0", "--limit", "2", "--seed", "7", "--json")
    proof = Proof.from_json(json.loads(result.stdout))
    assert json.loads(result.stdout)["kind"] == "proof"
    assert [row.method for row in proof.rows] == ["session", "plain", "suffix"]
    assert {row.prompts for row in proof.rows} == {2}
    assert {row.temperature for row in proof.rows} == {0}
    assert {"date", "machine", "versions"} <= set(proof.about)
    given = "--methods suffix --temperature 0 --limit 2 --seed 7 --json"
    assert proof.command == f"unspool prove --prompts prompts.txt --max-new-tokens 30 {given}"


def test_a_report_is_written(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[Any] = []
    report = ModuleType("unspool.report.page")
    report.write = lambda results, path: written.append((results, path))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unspool.report.page", report)
    assert run("--methods", "plain", "--temperature", "0", "--html", str(tmp_path / "proof.html")).exit_code == 0
    (((proof,), path),) = written
    assert isinstance(proof, Proof) and path == tmp_path / "proof.html"


def test_all_leaves_out_what_cannot_be_proven_and_says_so(run: Any, install: Any) -> None:
    install(method("loose", "acceptance", "lossy", KeepsRejected))
    result = run("--temperature", "0", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "left out: loose (loose is 'lossy' of kind acceptance, for which there is no test" in result.stderr
    assert "left out: same_noise" in result.stderr
    assert "token_recycling" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "sufix"), "did you mean 'suffix'"),
        (("--temperature", "-1"), "temperature must be at least 0"),
        (("--methods", "greedy", "--temperature", "1"), "greedy is for temperature 0"),
        (("--prompts", "missing.txt"), "cannot read missing.txt"),
        (("--html", "missing/proof.html"), "cannot write missing/proof.html"),
        (("--max-new-tokens", "0"), "max_new_tokens must lie in 1"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(arguments: tuple[str, ...], message: str, run: Any) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UnspoolError)
    assert message in str(result.exception)
    assert result.loads == []


def test_a_bad_line_of_a_prompt_file_is_named(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text('{"prompt": "0"}\n{"prompt": \n')
    result = run("--prompts", str(path))
    assert "suite.jsonl, line 2: not JSON" in str(result.exception)
    assert result.loads == []
