"""Calls of every command that cannot be served: one line that names the culprit, exit code 2, and no work was done.

The calls are the lines of ``bad_calls.txt``; what stands behind ``<<<`` is standard input, as Python writes bytes;
None is a closed one.
``INVALID`` stands for an argument that is not UTF-8.
"""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from unspool import cli
from unspool.backends.torch import checkpoints as diffusion_checkpoints
from unspool.methods.diffusion.entropy_threshold import train as certainty_forcing
from unspool.methods.diffusion.learn2pd import train as unmask_filter
from unspool.models import download
from unspool.recipes.tiny_diffusion import train as canvas_model

CALLS = Path(__file__).with_name("bad_calls.txt").read_text("utf-8").splitlines()

COMMAND = typer.main.get_command(cli.app)
"""Made once: ``cli.app`` is built anew at each call."""

DEEP = "[" * 100_000
FILES: dict[str, str | bytes] = {
    **dict.fromkeys(("empty.txt", "empty.json", "empty.lark", "zero.gguf", "t_empty.jsonl"), ""),
    "blank.txt": " \n",
    "good.txt": "hello",
    "one.txt": "a\n",
    "binary.bin": b"\0\xff\xfe\1" * 10,
    "latin.txt": "café".encode("latin-1"),
    "utf16.txt": "hello".encode("utf-16"),
    "good.json": '{"type": "object"}',
    "bom.json": b'\xef\xbb\xbf{"type": "object"}',
    "list.json": "[1, 2]",
    "null.json": "null",
    "num.json": "3",
    "false.json": "false",
    "cut.json": '{"type": "obj',
    "deep.json": DEEP,
    "twice.json": '{"type": "string", "type": "integer"}',
    "twice.jsonl": '{"prompt": "a"}\n{"prompt": "a", "prompt": "b"}\n',
    "bad.lark": "start: (",
    "p.jsonl": '{"prompt": "a"}\n{"promt": 1}\n',
    "dup.jsonl": '{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n',
    "arr.jsonl": "[1]\n",
    "num.jsonl": '{"prompt": 1}\n',
    "deep.jsonl": '{"prompt": ' + DEEP + "\n",
    "cfg/config.json": '{"model_type": "llama"}',
    "cfgctx/config.json": '{"model_type": "llama", "max_position_embeddings": 64}',
    "cfgctx/model.safetensors": b"\2\0\0\0\0\0\0\0{}",
    "cfgbad/config.json": "{",
    "cfglist/config.json": "[]",
    "cfgempty/config.json": "",
    "fake.gguf": "hello",
    "short.gguf": b"GGUF",
    "canvas/canvas.json": "{",
    "canvas2/canvas.json": "[]",
    "canvas3/canvas.json": "{}",
    "canvas3/config.json": "{}",
    "t_hdr.jsonl": '{"kind":"header","version":99}\n',
    "t_bad.jsonl": '{"kind":"header","version":1}\n',
    "r_kind.json": '{"kind": "x"}',
    "r_kindlist.json": '{"kind": [1], "version": 1}',
    "r_proof.json": '{"kind": "proof", "version": 1}',
    "r_bench.json": '{"kind": "bench", "version": 1, "runs": 3}',
    "r_front.json": '{"kind": "tradeoff", "version": 2, "points": {}}',
    "ds/header.json": "{",
    "ds2/header.json": '{"kind": "unspool datastore", "version": 1}',
    "ds3/header.json": DEEP,
    "th.json": "{",
    "th2.json": '{"a": 1}',
    "thdeep.json": DEEP,
    "func.py": "def f(x):\n    pass\n",
}


class LoadedError(BaseException):
    """Work has begun: a model is fetched or trained. Not an ``Exception``, so that nothing takes it for its own."""


def work(*_: object, **__: object) -> None:
    raise LoadedError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    for name, content in FILES.items():
        file = directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("dir", "emptydir"):
        (directory / name).mkdir()
    (directory / "loop").symlink_to("loop")
    return directory


@pytest.fixture
def call(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Exit code and both outputs of a line of ``CALLS``."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cli, "app", COMMAND)
    monkeypatch.setattr(download, "fetch", work)
    monkeypatch.setattr(diffusion_checkpoints, "_stock", work)
    monkeypatch.setattr(canvas_model, "train", work)
    monkeypatch.setattr(certainty_forcing, "train", work)
    monkeypatch.setattr(unmask_filter, "replay", work)

    def do(line: str) -> tuple[int, str, str]:
        line, _, given = line.partition(" <<< ")
        arguments = [os.fsdecode(b"caf\xe9") if word == "INVALID" else word for word in shlex.split(line)]
        stdin = ast.literal_eval(given) if given else b""
        monkeypatch.setattr(sys, "argv", ["unspool", *arguments])
        monkeypatch.setattr(sys, "stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return do


@pytest.mark.parametrize("line", CALLS)
def test_a_bad_call_is_one_line_that_names_the_culprit(
    line: str, call: Callable[[str], tuple[int, str, str]], files: Path
) -> None:
    before = sorted(files.rglob("*"))
    code, out, error = call(line)
    assert code == 2 and out == "", (out, error)
    (said,) = error.splitlines()
    assert said.startswith("unspool: ") and len(said) < 400
    words = [word.lstrip("-") for word in shlex.split(line.partition(" <<< ")[0])[1:]]
    words += [word.replace("-", "_") for word in words] + [
        part for word in words for pattern in ("[,:=@+]", "[(=]") for part in re.split(pattern, word)
    ]
    words = [word for word in words if len(word) > 1]
    others = ("prompt", "passage", "empty", "Missing", "not UTF-8", "schema", "JSON Schema", "''", "' '", "assistant")
    assert any(word in said for word in (*words, *others)), said
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(("closed", "shown"), [(">&-", "unspool: "), ("2>&-", "unspool 0"), (">&- 2>&-", "")])
def test_streams_that_are_closed_show_nothing_and_break_nothing(closed: str, shown: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m unspool"
    line = f"{command} --version {closed}" if shown == "unspool 0" else f"{command} generate -m '' x {closed}"
    ended = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)
    assert ended.returncode == (0 if shown == "unspool 0" else 2)
    said = ended.stdout + ended.stderr
    assert said.startswith(shown) and "internal" not in said and said.count("\n") == bool(shown)
