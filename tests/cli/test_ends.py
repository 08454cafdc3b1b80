"""How the program ends, whatever its streams, files and terminal are like."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

import unspool
from tests.cli.conftest import Main
from tests.cli.test_commands import one_line, started
from tests.cli.test_commands import unspool as run
from tests.proof.conftest import toy
from unspool import cli
from unspool.cli import methods as listing
from unspool.cli.common import print_json
from unspool.decoding import load as api
from unspool.errors import UnspoolError


@pytest.mark.model
def test_a_character_that_the_terminal_lacks_ends_nothing() -> None:
    arguments = ("generate", "--method", "plain", "--no-chat", "--choices", "🙂 é", "Hello")
    result = run(*arguments, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert set(result.stdout) <= set("? \n") and "Traceback" not in result.stderr


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "? ?"), ("latin-1", "? é"), ("utf-8", "🙂 é")])
def test_what_is_printed_is_text_with_replacements_and_json_without(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    cli._prepare_streams()
    print("🙂 é")
    print_json({"text": "🙂 é"})
    stream.flush()
    text, *rest = stream.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]
    assert text == shown
    assert json.loads("".join(rest)) == {"text": "🙂 é"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_bytes_that_are_no_text_are_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unspool", "generate"]
    environment = os.environ | {"UNSPOOL_CACHE": str(tmp_path)}
    argument = subprocess.run([*command, b"caf\xe9"], capture_output=True, env=environment, check=False)
    assert argument.returncode == 2
    assert argument.stderr.decode() == "unspool: the prompt is not UTF-8: 'caf\\udce9'; convert it\n"
    stdin = subprocess.run(command, input=b"caf\xe9 is", capture_output=True, env=environment, check=False)
    assert stdin.returncode == 2
    assert stdin.stderr.decode().startswith("unspool: the prompt on standard input is not UTF-8 (byte 3: ")


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unspool.cli.common import read_prompt

    file = tmp_path / "bom.txt"
    file.write_bytes(b"\xef\xbb\xbfThe sky is")
    assert read_prompt(None, file) == "The sky is"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfcaf\xc3\xa9"), "ascii"))
    assert read_prompt(None, None) == "café"


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    with started("methods", "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "unspool", "methods"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 2
    assert result.stderr == "unspool: No space left on device\n"


def test_an_unexpected_error_is_one_line_until_it_is_asked_for(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("a bug\nof ours")

    app = typer.Typer()
    app.command("methods")(broken)
    app.command("other")(listing.list_methods)
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.delenv("UNSPOOL_TRACEBACK", raising=False)
    code, out, error = main("methods")
    assert (code, out) == (1, "") and len(error.splitlines()) == 1
    assert error.startswith("unspool: internal error: KeyError: ") and "UNSPOOL_TRACEBACK=1" in error
    monkeypatch.setenv("UNSPOOL_TRACEBACK", "1")
    assert "in broken" in main("methods")[2]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UnspoolError("two\nlines"), 2, "unspool: two lines"),
        (PermissionError(13, "Permission denied", "x.json"), 2, "unspool: x.json: Permission denied"),
        (MemoryError(), 2, "unspool: out of memory; use a smaller model or weights of fewer bits (--weights int4)"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_what_the_environment_refuses_is_one_line(
    error: BaseException, code: int, line: str | None, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    ended, out, said = main()
    assert (ended, out) == (code, "")
    assert said.splitlines() == ([] if line is None else [line])


def test_a_usage_error_is_one_line_that_leads_to_the_help() -> None:
    assert one_line(run("generate", "--top-k", "x", "y")).endswith("see unspool generate --help")
    assert one_line(run("datastore", "biuld")).endswith("see unspool datastore --help")


def _commands(app: Any, *path: str) -> list[tuple[str, ...]]:
    command = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
    below = getattr(command, "commands", {})
    return [path, *(found for name, one in below.items() for found in _commands(one, *path, name))]


@pytest.mark.parametrize("command", _commands(cli.app), ids=" ".join)
def test_help_reads_well_in_80_columns(command: tuple[str, ...], main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "80"), ("NO_COLOR", "1")):  # typer keeps TERMINAL_WIDTH for the whole process
        monkeypatch.setenv(name, value)
    code, out, error = main(*command, "--help")
    assert (code, error) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    assert all(cell_len(line) <= 80 for line in lines)
    if "Examples:" not in out:
        return
    examples = lines[lines.index(" Examples:") + 1 : next(i for i, line in enumerate(lines) if line.startswith("╭"))]
    for before, line in pairwise(line for line in examples if line):
        assert line.startswith("   unspool ") or before.endswith(" \\"), line
    # Prose fills its lines: but for the last one of a paragraph, the next word would not have fitted.
    prose = lines[3 : next(i for i, line in enumerate(lines) if line.strip() == "Examples:")]
    for line, following in pairwise(prose):
        if line and following:
            assert len(line) + 1 + len(following.split()[0]) > 79, (line, following)


def test_help_names_the_exit_codes() -> None:
    text = " ".join(run("--help").stdout.split())
    for part in ("0 success", "1 a fault", "2 an error", "3 a text that was cut", "130 Ctrl-C"):
        assert part in text
    assert "Exit code 3" in " ".join(run("generate", "--help").stdout.split())


@pytest.fixture(scope="module")
def small() -> unspool.Model:
    return unspool.load("smollm2-135m")


@pytest.mark.model
@pytest.mark.parametrize("as_json", [False, True])
def test_a_text_that_was_cut_under_a_schema_ends_with_3(
    as_json: bool, small: unspool.Model, main: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(api, "load", lambda *_, **__: small)
    schema = tmp_path / "schema.json"
    schema.write_text('\ufeff{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}')
    arguments = ("generate", "--method", "plain", "--no-chat", *(["--json"] if as_json else []))
    code, out, error = main(*arguments, "--json-schema", str(schema), "--max-new-tokens", "3", "A person:")
    assert code == 3
    assert error.splitlines()[-1] == "unspool: the text was cut before it was complete; raise --max-new-tokens"
    if as_json:
        assert [json.loads(out)[name] for name in ("valid", "parsed", "parse_error")] == [False, None, None]


@pytest.mark.model
@pytest.mark.parametrize("given", [["--regex", "a+"], ["--constraint", "grammar:regex=a+"]])
def test_a_grammar_that_is_given_as_a_constraint_ends_as_its_own_option_does(
    given: list[str], small: unspool.Model, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "load", lambda *_, **__: small)
    arguments = ("generate", "--method", "plain", "--no-chat", "--json", "--max-new-tokens", "3")
    code, out, error = main(*arguments, *given, "Hello")
    assert code == 3 and json.loads(out)["valid"] is False
    assert "cut before it was complete" in error


@pytest.mark.model
def test_a_complete_text_is_valid_and_a_free_one_is_neither(
    small: unspool.Model, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "load", lambda *_, **__: small)
    arguments = ("generate", "--method", "plain", "--no-chat", "--json")
    code, out, _ = main(*arguments, "--choices", "🙂 é", "Hello")
    assert code == 0 and json.loads(out)["valid"] is True
    assert json.loads(out)["text"] == json.loads(out)["parsed"] == "🙂 é"
    code, out, _ = main(*arguments, "--max-new-tokens", "2", "Hello")
    assert code == 0 and json.loads(out)["valid"] is None and json.loads(out)["parsed"] is None


@pytest.mark.model
def test_a_search_needs_no_options(small: unspool.Model, main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "load", lambda *_, **__: small)
    code, out, error = main("search", "--max-new-tokens", "4", "Hello")
    assert code == 0 and out.strip() and "searching with beam" in error
    assert (
        "searching with adadec" in main("search", "--method", "adadec:threshold=9", "--max-new-tokens", "2", "Hello")[2]
    )
    assert small.search("Hello", max_new_tokens=2).text


@pytest.mark.model
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_a_command_that_is_bound_to_one_cpu_says_one_thread() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from unspool.cli import main; main()"
    arguments = ("generate", "--method", "plain", "--json", "--no-chat", "--max-new-tokens", "2", "Hi")
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["settings"]["threads"] == "1"


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_killed_command_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """A report is killed while it is written; the next one takes its place and clears up."""
    code = (
        "import os, signal, sys; from pathlib import Path; from unspool.storage import output;"
        "Path.write_text = lambda self, *_: (self.touch(), os.kill(os.getpid(), signal.SIGKILL));"
        "output.save('x', Path(sys.argv[1]))"
    )
    path = tmp_path / "report.html"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    from unspool.storage import output

    output.save("whole", path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"] and path.read_text() == "whole"


def test_two_processes_do_not_share_a_journal(tmp_path: Path) -> None:
    from unspool.storage.journal import Journal

    pytest.importorskip("fcntl")
    first = Journal(tmp_path / "runs.jsonl", {"seed": 0}, "--runs")
    with pytest.raises(UnspoolError, match="another process is writing"):
        Journal(tmp_path / "runs.jsonl", {"seed": 0}, "--runs")
    first.add({"run": 1})
    first.close()
    assert Journal(tmp_path / "runs.jsonl", {"seed": 0}, "--runs").lines == [{"run": 1}]


def test_a_proof_leaves_out_what_is_not_installed_at_the_start(
    main: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("jedi", "tree_sitter", "tree_sitter_python"):
        monkeypatch.setitem(sys.modules, name, None)
    model = toy()
    model.assistant = None
    monkeypatch.setattr(api, "load", lambda *_, **__: model)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("0120\n")
    arguments = ("prove", "--prompts", str(prompts), "--temperature", "0", "--max-new-tokens", "4")
    code, _, error = main(*arguments)
    assert code == 0, error
    lines = error.splitlines()
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert lines[: len(left_out)] == left_out
    for name, why in (("rpg", "tree_sitter"), ("monitor", "jedi"), ("draft_model", "needs a draft model")):
        assert any(line.startswith(f"left out: {name} (") and why in line for line in left_out), (name, left_out)
    monkeypatch.setattr(api, "load", pytest.fail)  # one that is asked for by name is told before
    code, _, error = main(*arguments, "--methods", "plain,rpg")
    assert code == 2 and 'pip install "unspool[code]"' in error


def test_what_a_shaper_or_a_constraint_needs_is_told_before_a_model_is_loaded(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jedi", "tree_sitter_python"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(api, "load", pytest.fail)
    assert "rpg needs tree_sitter_python" in main("generate", "--shaper", "rpg", "x")[2]
    assert 'pip install "unspool[monitor]"' in main("generate", "--constraint", "monitor:project=.", "x")[2]
