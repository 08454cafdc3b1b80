"""Spec-Bench's answer format, as its own evaluation reads it."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

from tests.bench.fakes import bench, run
from unspool.bench import spec_bench


def test_answers_have_the_fields_that_its_evaluation_reads(tmp_path: Path) -> None:
    values = {"passes": 4, "by_depth": [[2, 6], [1, 3]], "text": "hé"}
    runs = [
        run("plain", "161", 6, 3.0, category="translation", passes=7),
        run("auto", "161", 6, 1.0, category="translation", **values),
        run("auto", "81", 6, 2.0, category="mt_bench", **values),
        run("auto", "81", 6, 4.0, category="mt_bench", repeat=1, **values),
    ]
    files = spec_bench.write(bench(runs, model="a/b"), tmp_path / "answers", {"81": "writing", "161": "translation"})
    assert [file.name for file in files] == ["a_b-plain.jsonl", "a_b-auto.jsonl"]
    rows = [json.loads(line) for line in files[1].read_text("utf-8").splitlines()]
    assert [(row["question_id"], row["category"], row["model_id"]) for row in rows] == [
        (81, "writing", "a_b-auto"),
        (161, "translation", "a_b-auto"),
    ]
    assert set(rows[0]) == {"question_id", "category", "answer_id", "model_id", "choices", "tstamp"}
    first, second = rows[0]["choices"]
    assert first == {
        "index": 0,
        "turns": ["hé"],
        "decoding_steps": [4],
        "new_tokens": [7],
        "wall_time": [2.5],
        "accept_lengths": [3, 2, 1, 1],
    }
    assert (second["index"], second["wall_time"]) == (1, [4.5])
    # What its speed.py computes.
    choice = rows[1]["choices"][0]
    assert sum(choice["new_tokens"]) / sum(choice["wall_time"]) == 7 / 1.5
    assert mean(choice["accept_lengths"]) == 7 / 4
    assert rows[0]["answer_id"] != rows[1]["answer_id"]


def test_accept_lengths_add_up_to_the_tokens() -> None:
    # Two passes with a draft of depth 3 of which all was accepted; in the last one the text ended within the draft.
    cut = run("auto", "1", 6, 1.0, passes=2, by_depth=[[2, 4], [2, 4], [2, 2]])
    assert sum(spec_bench.accept_lengths(cut)) == 7 and len(spec_bench.accept_lengths(cut)) == 2
    assert spec_bench.accept_lengths(run("plain", "1", 3, 1.0, passes=4)) == [1, 1, 1, 1]
    assert spec_bench.accept_lengths(run("llama_cpp", "1", 2, 1.0)) == [1, 1, 1]
