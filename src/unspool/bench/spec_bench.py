"""Writes the runs in Spec-Bench's answer format, for its ``evaluation/speed.py``: one JSON line per question."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from unspool.bench.result import Bench, Run
from unspool.storage import cache as store


def write(bench: Bench, directory: Path, categories: Mapping[str, str]) -> list[Path]:
    """Write one file per contestant, ``<model>-<contestant>.jsonl``; repeats are the ``choices`` of a question.

    ``wall_time`` is the total time, prefill included, as in Spec-Bench. ``accept_lengths`` has one entry per pass,
    bonus token included. Pass the file of ``plain`` as ``--base-path``.

    Args:
        categories: by prompt id, the category to write if it is not the reported one.
    """
    written = []
    for name in dict.fromkeys(run.contestant for run in bench.runs):
        model_id = re.sub(r"[^\w.@-]", "_", f"{bench.model}-{name}")
        questions: dict[str, list[Run]] = {}
        for run in bench.runs:
            if run.contestant == name:
                questions.setdefault(run.prompt, []).append(run)
        lines = [
            json.dumps(_answer(runs, model_id, bench, categories), ensure_ascii=False) + "\n"
            for _, runs in sorted(questions.items(), key=lambda item: _number(item[0]))
        ]
        path = directory / f"{model_id}.jsonl"
        with store.atomic_file(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        written.append(path)
    return written


def _answer(runs: list[Run], model_id: str, bench: Bench, categories: Mapping[str, str]) -> dict[str, Any]:
    first = runs[0]
    return {
        "question_id": int(first.prompt) if first.prompt.isdecimal() else first.prompt,
        "category": categories.get(first.prompt, first.category),
        # Reproducible: the same result yields the same file.
        "answer_id": uuid.uuid5(uuid.NAMESPACE_OID, f"{bench.about['date']} {model_id} {first.prompt}").hex,
        "model_id": model_id,
        "choices": [
            {
                "index": index,
                "turns": [run.text],
                # Peers do not report passes, but as run here, each pass yields one token.
                "decoding_steps": [len(run.token_ids) if run.passes is None else run.passes],
                "new_tokens": [len(run.token_ids)],
                "wall_time": [run.first_seconds + run.seconds],
                "accept_lengths": accept_lengths(run),
            }
            for index, run in enumerate(runs)
        ],
        "tstamp": datetime.fromisoformat(bench.about["date"]).timestamp(),
    }


def accept_lengths(run: Run) -> list[int]:
    """Tokens of each pass, longest first: runs record how many passes reached each depth, not their order.

    Spec-Bench takes the mean, which does not depend on the order.
    """
    if run.passes is None:
        return [1] * len(run.token_ids)
    reached = [run.passes, *(accepted for accepted, _ in run.by_depth), 0]
    lengths = [
        depth + 1 for depth in range(len(reached) - 2, -1, -1) for _ in range(reached[depth] - reached[depth + 1])
    ]
    # The last pass has no bonus token if the text ended within its draft.
    if sum(lengths) > len(run.token_ids):
        lengths[0] -= 1
    return lengths


def _number(prompt: str) -> tuple[int, str]:
    return (int(prompt), "") if prompt.isdecimal() else (0, prompt)
