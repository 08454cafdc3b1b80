"""An interrupted benchmark goes on where it was, and only by the same command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.fakes import Fake, Silent, plan, run
from unspool.bench.partial import Partial
from unspool.bench.runner import measure
from unspool.errors import UnspoolError

HEADER = {"model": "tiny", "methods": ("auto",), "seed": 0}
ABOUT = {"date": "then"}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "out.json.partial.jsonl"


def partial(tmp_path: Path, header: dict[str, Any] = HEADER, about: dict[str, Any] = ABOUT) -> Partial:
    return Partial(tmp_path / "out.json", header, about)


def test_the_same_command_makes_only_the_missing_runs_in_the_same_order(tmp_path: Path) -> None:
    whole = measure(plan(repeats=2), lambda c: Fake(c, []), Silent())
    first = partial(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        # Plain decodes the warm-up and seven prompts, so the second repeat has begun.
        measure(
            plan(repeats=2),
            lambda c: Fake(c, [], 8 if c.name == "plain" else None, KeyboardInterrupt),
            Silent(),
            keep=first.add,
        )
    first.close()
    log: list[tuple[str, Any]] = []
    second = partial(tmp_path, about={"date": "now"})
    done = list(second.runs)
    assert 21 <= len(done) < 24 and done == whole.runs[: len(done)]
    assert second.about == {"date": "then", "resumed_after_runs": [len(done)]}
    progress = Silent()
    measured = measure(plan(repeats=2), lambda c: Fake(c, log), progress, second.runs, second.add)
    assert measured.runs == whole.runs
    assert sum(isinstance(what, int) for _, what in log) == 36 - len(done) + 3, "the missing runs and three warm-ups"
    assert progress.counts[0] == (len(done) + 1, len(done) + 1, 36)
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_memory_is_the_peak_over_all_sessions(tmp_path: Path) -> None:
    first = partial(tmp_path)
    first.add(run("plain", "0", 2, 1.0), 500)
    first.close()
    second = partial(tmp_path)
    second.add(run("plain", "1", 2, 1.0), 300)
    assert second.memory == {"plain": 500}


def test_another_command_is_refused_with_what_to_do(tmp_path: Path, journal: Path) -> None:
    first = partial(tmp_path)
    first.add(run("plain", "0", 2, 1.0), 1)
    first.close()
    before = journal.read_bytes()
    with pytest.raises(UnspoolError, match=r"another command \(seed: 0, now 1\); finish that one, give another --json"):
        partial(tmp_path, {**HEADER, "seed": 1})
    assert journal.read_bytes() == before
    partial(tmp_path).close()


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, journal: Path) -> None:
    first = partial(tmp_path)
    first.add(run("plain", "0", 2, 1.0, text="é"), 1)
    first.add(run("auto", "0", 2, 1.0), 1)
    first.close()
    data = journal.read_bytes()
    journal.write_bytes(data[:-10] + b" " * 5000)
    second = partial(tmp_path)
    assert [one.contestant for one in second.runs] == ["plain"]
    second.add(run("auto", "0", 4, 1.0), 1)
    second.close()
    third = partial(tmp_path)
    assert [(one.contestant, one.timed_tokens) for one in third.runs] == [("plain", 2), ("auto", 4)]
    assert third.about["resumed_after_runs"] == [1, 2]
    assert all(isinstance(json.loads(line), dict) for line in journal.read_text().splitlines())


@pytest.mark.parametrize("cut", [3, 80])
def test_a_beginning_that_was_cut_off_starts_anew(tmp_path: Path, journal: Path, cut: int) -> None:
    first = partial(tmp_path)
    first.close()
    journal.write_bytes(journal.read_bytes()[:cut])
    second = partial(tmp_path)
    assert second.runs == [] and second.about == ABOUT
    second.close()
    assert len(journal.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            ("no JSON\n", "contains no runs;"),
            ("[1]\n", "contains no runs;"),
            ("notes without a line end", "contains no runs;"),
        ),
        *(('{"header": {}}\nno JSON\n', "is damaged"), ('{"header": {}}\n[1]\n', "contains no runs;")),
    ],
)
def test_a_foreign_file_is_refused_and_kept(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "out.json.partial.jsonl"
    path.write_text(content)
    with pytest.raises(UnspoolError, match=message):
        partial(tmp_path)
    assert path.read_text() == content


def test_without_a_result_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Partial(None, HEADER, ABOUT)
    kept.add(run("plain", "0", 2, 1.0), 7)
    kept.remove()
    assert kept.memory == {"plain": 7} and list(tmp_path.iterdir()) == []
