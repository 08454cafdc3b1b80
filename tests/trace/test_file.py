"""The trace format: what the loop writes is valid, a cut is survived, everything else that is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.trace.traces import PROMPT, canvas, lines, put, recorded, run, save, toy
from unspool import Model, UnspoolError, methods
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.trace import EndEvent, StartEvent, StepEvent
from unspool.trace import file as trace_file
from unspool.trace.schema import schema
from unspool.trace.viewer.page import _data

DRAFTERS = [name for name, method in methods.methods().items() if method.kind is DRAFTER]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"alternatives": 0},
    {"alternatives": 20, "temperature": 0.9, "top_k": 3, "repetition_penalty": 1.2},
    {"temperature": 1.0, "acceptance": "lossless"},
    {"eos_token_id": [0, 5]},
]
ANY_LINE = Draft202012Validator(schema())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    made = toy(tmp_path / "model")
    made._costs = PassCosts(CostCurve((1, 8, 64), (32,), ((10.0, 11.0, 40.0),)))  # auto asks for one
    made.assistant = toy(tmp_path / "assistant")
    return made


@pytest.fixture
def path(tmp_path: Path, model: Model) -> Path:
    return recorded(tmp_path / "run.jsonl", model)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", DRAFTERS)
def test_every_event_of_the_loop_is_valid(tmp_path: Path, model: Model, method: str, setting: dict[str, Any]) -> None:
    result = run(model, method=method, **setting)
    path = save(tmp_path / "run.jsonl", model, result)
    for line in lines(path):
        ANY_LINE.validate(line)
    trace = trace_file.read(path)
    assert not trace.truncated
    assert len(trace.events) == len(result.trace)
    assert trace.header["prompt"] == model.tokenizer.decode(PROMPT) == " the\n the<b>& the\n the"
    steps = [event for event in trace.events if event["kind"] == "step"]
    assert [token for step in steps for token in step["emitted"]] == result.token_ids
    for step in steps:
        listed = {token for best in step["alternatives"] or () for token, _ in best}
        assert {int(token) for token in step["texts"]} == {*step["tokens"], *step["emitted"], *listed}


def test_pieces_and_the_rest_are_the_text_that_ends_within_a_character(tmp_path: Path, model: Model) -> None:
    """Two of the four bytes of 😀."""
    events = [
        StartEvent(0, 1, "plain", {}, 0.0, 0),
        StepEvent(0, 0, 7, (4,), (-1,), ("root",), (0,), (0,), (1.0,), None, 0, 0, 0, 0),
        StepEvent(0, 1, 8, (0,), (-1,), ("root",), (0,), (1,), (1.0,), None, 0, 0, 0, 0),
        EndEvent(0, "length"),
    ]
    path = tmp_path / "run.jsonl"
    trace_file.write(path, trace_file.make_header("toy", PROMPT, model.tokenizer, 8), events, model.tokenizer)
    *_, end = lines(path)
    assert end["rest"] == "\ufffd" == model.tokenizer.decode([0, 1])
    assert trace_file.read(path).events[-1] == end
    assert '"pieces": ["\\ufffd"]' in json.dumps(_data(trace_file.read(path), "run"))


def test_a_file_that_was_cut_anywhere_is_read_up_to_the_cut(path: Path, tmp_path: Path) -> None:
    data, whole = path.read_bytes(), trace_file.read(path).events
    first = data.index(b"\n")
    cut = tmp_path / "cut.jsonl"
    for end in range(first, len(data) - 1, 97):
        cut.write_bytes(data[:end])
        trace = trace_file.read(cut)
        assert trace.truncated
        complete = data[:end].count(b"\n") + (data[end : end + 1] == b"\n")
        assert trace.events == whole[: complete - 1]
    cut.write_bytes(data[:-1])  # only the last line break is missing
    assert trace_file.read(cut) == trace_file.read(path)
    for end in (0, 1, first - 1):
        cut.write_bytes(data[:end])
        with pytest.raises(UnspoolError, match="ends within its first line"):
            trace_file.read(cut)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_is_refused_with_what_to_do(path: Path, version: Any) -> None:
    first, *rest = lines(path)
    with pytest.raises(UnspoolError, match=rf"format {version}, .* reads format 1; update with pip install --upgrade"):
        trace_file.read(put(path, [first | {"version": version}, *rest]))


@pytest.mark.parametrize(
    "line", ["{", "", "[1]", "NaN", '{"kind": "end", "row": NaN}', '{"row": 1e999}', "\x00", "[" * 9999]
)
def test_a_line_in_the_middle_that_is_no_object_is_named(path: Path, line: str) -> None:
    text = path.read_text("utf-8").splitlines()
    text.insert(3, line)
    path.write_text("\n".join(text) + "\n", "utf-8")
    with pytest.raises(UnspoolError, match=r"run\.jsonl, line 4 is not a JSON object"):
        trace_file.read(path)


def test_what_is_no_trace_is_refused(path: Path, tmp_path: Path) -> None:
    for text in ('{"a": 1}\n', "hello\n", "\n", '{"kind": "header"}\n'):
        (tmp_path / "other.jsonl").write_text(text)
        with pytest.raises(UnspoolError, match="line 1 is not a header"):
            trace_file.read(tmp_path / "other.jsonl")
    with pytest.raises(UnspoolError, match=r"cannot read .*No such file"):
        trace_file.read(tmp_path / "missing.jsonl")
    first, *rest = lines(path)
    for broken in ({"model": 1}, {"prompt_token_ids": []}, {"extra": 1}):
        with pytest.raises(UnspoolError, match="line 1: "):
            trace_file.read(put(path, [first | broken, *rest]))


def changed(rows: list[dict[str, Any]], kind: str, /, **changes: Any) -> tuple[int, list[dict[str, Any]]]:
    """The rows with one line of that kind changed, and the number of the line; a change of None removes the field."""
    at = next(i for i, row in enumerate(rows) if row["kind"] == kind and (kind != "step" or len(row["emitted"]) > 1))
    line = {name: value for name, value in (rows[at] | changes).items() if value is not None}
    return at + 1, [*rows[:at], line, *rows[at + 1 :]]


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("start", {"temperature": "hot"}),
    ("start", {"settings": {"threads": 2}}),
    ("start", {"prompt_tokens": 0}),
    ("prefill", {"ms": -1}),
    ("prefill", {"tokens": 1.5}),
    ("step", {"tokens": [-1]}),
    ("step", {"tokens": ["a"]}),
    ("step", {"tokens": [True]}),
    ("step", {"sources": [""]}),
    ("step", {"sources": [None]}),
    ("step", {"parents": [-2]}),
    ("step", {"accepted": []}),
    ("step", {"margins": ["much", 0]}),
    ("step", {"alternatives": [[[1]]]}),
    ("step", {"alternatives": [[[1, "x"]]]}),
    ("step", {"alternatives": [[[1, -1, 2]]]}),
    ("step", {"alternatives": [[[1, -1]] * 21]}),
    ("step", {"ranks": [-1]}),
    ("step", {"texts": {"a": "b"}}),
    ("step", {"texts": {"01": "b"}}),
    ("step", {"texts": {"1": 2}}),
    ("step", {"pieces": [1]}),
    ("step", {"score_ms": None}),
    ("step", {"texts": None}),
    ("step", {"other": 1}),
    ("canvas", {"slots": []}),
    ("canvas", {"slots": [-1]}),
    ("canvas", {"confidence": [1.1, 0]}),
    ("canvas", {"committed": [0, 0]}),
    ("canvas", {"block": -1}),
    ("canvas", {"ms": None}),
    ("end", {"reason": "tired"}),
    ("end", {"row": None}),
    ("end", {"kind": "fin"}),
]


@pytest.mark.parametrize(("kind", "changes"), MALFORMED)
def test_the_schema_refuses_what_is_malformed(path: Path, tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    rows = lines(canvas(tmp_path / "canvas.jsonl", path) if kind == "canvas" else path)
    number, wrong = changed(rows, kind, **changes)
    assert not ANY_LINE.is_valid(wrong[number - 1])
    with pytest.raises(UnspoolError, match=rf"run\.jsonl, line {number}: .*; write the trace again"):
        trace_file.read(put(path, wrong))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("step", {"tokens": [1]}, "one entry for each of the 1 tokens"),
        ("step", {"sources": ["root"]}, "parents and sources"),
        ("step", {"accepted": [1]}, "path that starts at the root"),
        ("step", {"accepted": [0, 0]}, "path that starts at the root"),
        ("step", {"accepted": [0, 999]}, "path that starts at the root"),
        ("step", {"accepted": [0]}, "tokens were emitted, but only 1 nodes"),
        ("step", {"margins": [1.0]}, "margins needs one entry"),
        ("step", {"pieces": []}, "pieces needs one entry"),
        ("step", {"ranks": [0]}, "ranks needs one entry"),
        ("step", {"position": 1}, "its position is 1, but the text before it ends at"),
        ("step", {"row": 1}, "belongs to another sequence"),
        ("canvas", {"confidence": [1.0]}, "confidence needs one entry for each of the 2"),
        ("canvas", {"committed": [0, 6]}, "slot without a token"),
        ("canvas", {"committed": [0, 1]}, "slot without a token"),
    ],
)
def test_contradictions_that_a_schema_cannot_see_are_named(
    path: Path, tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    rows = lines(canvas(tmp_path / "canvas.jsonl", path) if kind == "canvas" else path)
    number, wrong = changed(rows, kind, **changes)
    assert ANY_LINE.is_valid(wrong[number - 1])
    with pytest.raises(UnspoolError, match=rf"line {number}: .*{message}"):
        trace_file.read(put(path, wrong))


def test_a_second_trace_in_the_file_is_refused(path: Path) -> None:
    rows = lines(path)
    with pytest.raises(UnspoolError, match=f"line {len(rows) + 1}: a second header"):
        trace_file.read(put(path, rows * 2))
    with pytest.raises(UnspoolError, match=f"line {len(rows) + 1}: it belongs to another sequence"):
        trace_file.read(put(path, [*rows, rows[1]]))


def test_canvas_events_are_valid(path: Path, tmp_path: Path) -> None:
    trace = trace_file.read(canvas(tmp_path / "canvas.jsonl", path))
    assert [event["kind"] for event in trace.events] == ["start", "prefill", *["canvas"] * 3, "end"]
    for line in lines(tmp_path / "canvas.jsonl"):
        ANY_LINE.validate(line)
