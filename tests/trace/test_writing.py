"""Writing a trace: texts of tokens, numbers that JSON lacks, and what a run that is stopped leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.trace.traces import PROMPT, SMILE, lines, save, tokenizer, toy
from unspool import Model, UnspoolError
from unspool.engine.trace import EndEvent, StepEvent, to_json
from unspool.trace import file as trace_file
from unspool.trace.schema import problem_of
from unspool.trace.viewer.page import _data


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return toy(tmp_path / "model")


def step(**changes: Any) -> StepEvent:
    fields: dict[str, Any] = {
        "row": 0,
        "index": 0,
        "position": len(PROMPT),
        "tokens": (4, *SMILE),
        "parents": (-1, 0, 1, 2, 3),
        "sources": ("root", *["suffix"] * 4),
        "accepted": (0, 1, 2, 3, 4),
        "emitted": (*SMILE, 7),
        "margins": (1.0,) * 4 + (math.inf,),
        "logprobs": (-0.5,) * 4 + (-math.inf,),
        "draft_ms": 0.1,
        "score_ms": 2.0,
        "accept_ms": 0.1,
        "observe_ms": 0.0,
    }
    return StepEvent(**(fields | changes))


def header(model: Model) -> dict[str, Any]:
    return trace_file.make_header("toy", PROMPT, model.tokenizer, 8)


def test_tokens_that_make_one_character_are_readable_alone_and_right_together(tmp_path: Path, model: Model) -> None:
    trace_file.write(tmp_path / "run.jsonl", header(model), [step()], model.tokenizer)
    (event,) = trace_file.read(tmp_path / "run.jsonl").events
    assert event["pieces"] == ["", "", "", "😀", ""]
    assert event["texts"] == {"0": "‹F0›", "1": "‹9F›", "2": "‹98›", "3": "‹80›", "4": " the", "7": "<end>"}


def test_infinite_numbers_are_null(tmp_path: Path, model: Model) -> None:
    trace_file.write(tmp_path / "run.jsonl", header(model), [step()], model.tokenizer)
    (event,) = trace_file.read(tmp_path / "run.jsonl").events
    assert event["margins"] == [1.0] * 4 + [None]
    assert event["logprobs"] == [-0.5] * 4 + [None]


def test_readable_texts_of_other_vocabularies() -> None:
    class Sentencepiece:
        def token(self, token: int) -> str:
            return ["▁the", "<0xE2>", "", "Ġ©Ã"][token]

        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            return ["the", "\ufffd", "", " \ufffd"][ids[0]]

    texts = [trace_file.token_text(Sentencepiece(), token) for token in range(4)]  # type: ignore[arg-type]
    assert texts == [" the", "‹E2›", "‹2›", " ‹A9 C3›"]


def test_a_cut_within_a_character_is_survived(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "run.jsonl"
    trace_file.write(path, header(model), [step(), step(index=1, position=12)], model.tokenizer)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex("😀".encode()) + 2])
    trace = trace_file.read(path)
    assert trace.truncated and len(trace.events) == 1


def test_parents_come_before_their_children() -> None:
    line = json.loads(json.dumps(to_json(step(parents=(-1, 2, 1, 2, 3))))) | {"texts": {}, "pieces": [""] * 5}
    assert "an earlier node" in str(problem_of(line, "step"))


def test_a_run_that_is_stopped_leaves_a_readable_trace(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "run.jsonl"
    with trace_file.TraceWriter(path, header(model), model.tokenizer) as writer:
        stream = model.stream(PROMPT, method="plain", max_new_tokens=30, on_event=writer.add)
        for seen, _ in enumerate(stream, 1):
            assert len(lines(path)) >= seen + 3, "an event was not in the file when its text was there"
            if seen == 2:
                break
    trace = trace_file.read(path)
    assert trace.truncated
    assert [event["kind"] for event in trace.events[:3]] == ["start", "prefill", "step"]


def test_the_trace_of_a_run_that_fails_says_why(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "run.jsonl"

    def shaper(tokens: Any, logits: Any) -> Any:
        raise LookupError("no such word")

    with trace_file.TraceWriter(path, header(model), model.tokenizer) as writer, pytest.raises(LookupError):
        model.generate(PROMPT, method="plain", shapers=[shaper], on_event=writer.add)
    trace = trace_file.read(path)
    assert trace.events[-1] == {"kind": "end", "row": 0, "reason": "error", "error": "LookupError: no such word"}
    assert not trace.truncated and _data(trace, "run")["reason"] == "LookupError: no such word"
    assert to_json(EndEvent(0, "cancelled")) == {"kind": "end", "row": 0, "reason": "cancelled"}
    assert problem_of(to_json(EndEvent(0, "cancelled")), "end") is None


def test_an_old_file_is_kept_until_the_first_event(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("old")
    with trace_file.TraceWriter(path, header(model), model.tokenizer) as writer:
        assert path.read_text() == "old"
        writer.add(step())
        assert lines(path)[0]["kind"] == "header" and len(lines(path)) == 2


def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, model: Model) -> None:
    for path, message in ((tmp_path, "is a directory"), (tmp_path / "no" / "run.jsonl", "there is no directory")):
        with pytest.raises(UnspoolError, match=message):
            trace_file.TraceWriter(path, header(model), model.tokenizer)


def test_a_file_holds_one_sequence(tmp_path: Path, model: Model) -> None:
    with (
        trace_file.TraceWriter(tmp_path / "run.jsonl", header(model), model.tokenizer) as writer,
        pytest.raises(UnspoolError, match="one file for each row"),
    ):
        writer.add(step())
        writer.add(step(row=1))


def test_a_row_of_a_batch_can_be_written(tmp_path: Path, model: Model) -> None:
    results = model.generate(["the the", "the"], chat=False, method="suffix", max_new_tokens=9, alternatives=2)
    trace = trace_file.read(save(tmp_path / "run.jsonl", model, results[1]))
    assert {event["row"] for event in trace.events} == {1}


def test_the_tokenizer_of_these_tests_is_byte_level(tmp_path: Path) -> None:
    assert tokenizer(tmp_path / "t").decode(SMILE) == "😀"
