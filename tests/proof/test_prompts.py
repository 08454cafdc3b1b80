"""Files of prompts, and the prompts that are used without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unspool.errors import UnspoolError
from unspool.proof.prompts import PROMPTS
from unspool.suites.prompts import Prompt, read_prompts


def write(tmp_path: Path, name: str, *lines: object) -> Path:
    path = tmp_path / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_own_prompts_are_of_several_kinds() -> None:
    assert len({prompt.id for prompt in PROMPTS}) == len({prompt.text for prompt in PROMPTS}) == len(PROMPTS) == 12
    assert len({prompt.category for prompt in PROMPTS}) >= 6


def test_plain_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "prompts.txt", "Why?", "", "  How, \u2028 so?  ")
    assert read_prompts(path) == [Prompt("1", "prompt", "Why?"), Prompt("3", "prompt", "How, \u2028 so?")]


def test_json_lines_in_every_form(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "suite.jsonl",
        {"question_id": 81, "category": "writing", "turns": ["First.", "Second."]},
        "",
        {"task_id": "HumanEval/0", "prompt": "def f():"},
        {"id": "j", "prompt": "Give JSON.", "checker": "json", "reference": "[]"},
        {"prompt": "No id."},
    )
    assert read_prompts(path) == [
        Prompt("81", "writing", "First."),
        Prompt("HumanEval/0", "prompt", "def f():"),
        Prompt("j", "prompt", "Give JSON.", "json", "[]"),
        Prompt("5", "prompt", "No id."),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'prompt': 1}", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ({"turns": []}, 'line 2: needs "prompt"'),
        ({"prompt": "  "}, 'line 2: needs "prompt"'),
        ({"prompt": 3}, 'line 2: needs "prompt"'),
        ({"prompt": "x", "checker": 1}, 'line 2: "checker"'),
        ({"prompt": "x", "id": "a"}, "line 2: the id 'a' is that of line 1"),
    ],
)
def test_a_bad_line_is_named(line: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match=message):
        read_prompts(write(tmp_path, "suite.jsonl", {"prompt": "x", "id": "a"}, line))


def test_files_that_cannot_be_read_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match=r"cannot read .*missing\.txt"):
        read_prompts(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnspoolError, match="is not UTF-8"):
        read_prompts(tmp_path / "binary.txt")
    with pytest.raises(UnspoolError, match=r"contains no prompt|is empty"):
        read_prompts(write(tmp_path, "empty.txt", "", " "))
