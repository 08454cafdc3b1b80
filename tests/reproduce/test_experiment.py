"""Outcomes are computed from figures; runs continue after an interruption; results are files that can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unspool import experiments
from unspool.cli import main
from unspool.errors import UnknownNameError, UnspoolError
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Outcome, Row, Summary
from unspool.reproduce.held import UNTESTED, held
from unspool.reproduce.result import ExperimentResult, file_name, read, worse, write
from unspool.reproduce.run import run
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import share

PASSED: list[str] = []


def cases(setup: Setup) -> list[Case]:
    def measure(i: int) -> list[Row]:
        PASSED.append(str(i))
        return [{"hit": i % 4 > 0, "same": True}]

    return [Case(str(i), lambda i=i: measure(i)) for i in range(setup.count)]  # type: ignore[misc]


def summarise(rows: Sequence[Row]) -> Summary:
    hits = share([row["hit"] for row in rows])
    return Summary({"hits": hits, "same": Figure(float(all(row["same"] for row in rows)))})


STUB = Experiment(
    claim="Three in four.",
    control="chance",
    test="a stub",
    cases=cases,
    summarise=summarise,
    requires=[Expect("same", at_least=1)],
    expects=[Expect("hits", at_least=0.5, cases=20)],
    methods=("suffix",),
    name="stub",
)


@pytest.mark.parametrize(
    ("figures", "outcome"),
    [
        ({"a": Figure(0.7, 0.6, 0.8), "b": Figure(1)}, "held"),
        ({"a": Figure(0.7, 0.5, 0.8), "b": Figure(1)}, "held"),  # a bound is part of its range
        ({"a": Figure(0.7, 0.49, 0.9), "b": Figure(1)}, "partly"),  # the estimate alone is not enough
        ({"a": Figure(0.7, 0.49, 0.9), "b": Figure(3)}, "absent"),
        ({"a": Figure(0.7, 0.6, 0.8)}, "not measurable here"),
        ({"a": Figure(0.7, 0.6, 0.8, 9), "b": Figure(1)}, "not measurable here"),  # too few
        ({"a": Figure(float("nan")), "b": Figure(3)}, "absent"),
        ({"a": Figure(0.7, 0.6, 0.8), "b": Figure(1), "same": Figure(0.9)}, "invalid"),
    ],
)
def test_the_outcome_follows_from_the_intervals(figures: dict[str, Figure], outcome: Outcome) -> None:
    same = {"same": Figure(1)}
    experiment = replace(STUB, expects=[Expect("a", at_least=0.5, cases=10), Expect("b", at_most=2)])
    assert experiment.outcome({**same, **figures}) == outcome


@pytest.mark.parametrize(
    ("loss", "passes", "outcome"), [(-0.01, 3.0, "held"), (-0.4, 3.0, "absent"), (-0.01, 1.0, "absent")]
)
def test_bounds_of_one_claim_are_met_together(loss: float, passes: float, outcome: Outcome) -> None:
    bounds = [Expect("loss", at_least=-0.03, together="t"), Expect("passes", at_least=2, together="t")]
    figures = {"same": Figure(1), "loss": Figure(loss), "passes": Figure(passes)}
    assert replace(STUB, expects=bounds).outcome(figures) == outcome


def test_a_requirement_that_was_not_measured_gives_no_verdict() -> None:
    assert STUB.outcome({"hits": Figure(1, count=100)}) == "not measurable here"


def test_a_run_continues_where_it_was_interrupted(tmp_path: Path) -> None:
    PASSED.clear()

    def interrupted(setup: Setup) -> list[Case]:
        def stop() -> list[Row]:
            raise KeyboardInterrupt

        return [*cases(setup)[:3], Case("3", stop), *cases(setup)[4:]]

    journal = tmp_path / "stub.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(replace(STUB, cases=interrupted), Setup("toy", 40), "unspool reproduce stub", journal)
    assert PASSED == ["0", "1", "2"]
    result = run(STUB, Setup("toy", 40), "unspool reproduce stub", journal)
    assert [str(i) for i in range(40)] == PASSED, "no case is measured twice"
    assert result.outcome == "held" and result.figures["hits"].value == 0.75
    assert [row["case"] for row in result.rows] == PASSED
    with pytest.raises(UnspoolError, match="another command"):
        run(STUB, Setup("toy", 20), "unspool reproduce stub", journal)


def test_cases_of_the_same_key_are_refused() -> None:
    twice = replace(STUB, cases=lambda setup: [*cases(setup), *cases(setup)])
    with pytest.raises(UnspoolError, match="the same key"):
        run(twice, Setup("toy", 2), "")


def test_a_suite_that_would_not_be_used_is_refused() -> None:
    PASSED.clear()
    with pytest.raises(UnspoolError, match="leave --suite out"):
        run(STUB, Setup("toy", 2, suite="mixed"), "")
    asks = replace(STUB, cases=lambda setup: cases(setup) if setup.prompts() else [])
    assert run(asks, Setup("toy", 2, suite="mixed"), "").rows and len(PASSED) == 2


def result(**changes: Any) -> ExperimentResult:
    return replace(run(STUB, Setup("a/Toy model", 40), "unspool reproduce stub"), **changes)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = result()
    path = tmp_path / made.file_name
    assert path.name == "stub-toy-model.json" == file_name("stub", "a/Toy model")
    write(made, path)
    assert read(path) == made
    assert len(path.read_text("utf-8").splitlines()) > 40, "a line a row"
    for damage in ({"outcome": "won"}, {"figures": {"hits": {"low": 1}}}, {"more": 1}):
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **damage}), "utf-8")
        with pytest.raises(UnspoolError, match="run it again"):
            read(path)
        write(made, path)


def test_outcomes_have_an_order() -> None:
    assert worse("absent", "held") and worse("invalid", "absent") and not worse("held", "partly")
    assert not worse("partly", "partly")


def test_the_page_has_every_paper_once_for_each_result_and_says_what_is_not_tested() -> None:
    made = result()
    papers = {"suffix": "SAM (2024)", "other": "Other (2025)"}
    lines = list(held(papers, [STUB, replace(STUB, name="house", methods=())], {"stub": [made, made]}))
    assert [(line.paper, line.outcome) for line in lines] == [
        ("SAM (2024)", "held"),
        ("SAM (2024)", "held"),
        ("Other (2025)", UNTESTED),
        ("", UNTESTED),
    ]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The stub is the one experiment; the directory for results."""
    monkeypatch.setattr(experiments, "names", lambda: ["stub"])
    monkeypatch.setattr(experiments, "find", lambda name: STUB)
    return tmp_path / "results"


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["unspool", "reproduce", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code))


def test_the_command_writes_a_result_and_checks_it(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "stub", "--output", str(stub), "--limit", "40", "-m", "toy") == 0
    path = stub / "stub-toy.json"
    assert [file.name for file in stub.iterdir()] == [path.name], "the journal is gone"
    said = capsys.readouterr().out
    assert "held" in said and "Three in four." in said
    made = read(path)
    assert made.command == "unspool reproduce stub --output results --limit 40 -m toy"
    written = path.read_bytes()
    assert command(monkeypatch, "stub", "--output", str(stub), "--limit", "40", "-m", "toy", "--check") == 0
    # Fewer cases allow no verdict any more.
    assert command(monkeypatch, "stub", "--output", str(stub), "--limit", "10", "-m", "toy", "--check") == 1
    assert path.read_bytes() == written and [file.name for file in stub.iterdir()] == [path.name]


def test_a_quick_run_writes_nothing(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "all", "--quick", "--output", str(stub)) == 0
    assert not stub.exists() and "no verdict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stub", "--quick", "--check"), "use one of them"),
        (("stub", "stub"), "named twice"),
        (("stub", "all"), "use either all or names"),
        (("stub", "--check", "--output", "nowhere"), "run `unspool reproduce stub` first"),
        (("stub", "--suite", "humanevil"), "humaneval"),
    ],
)
def test_mistakes_are_one_line(
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    PASSED.clear()
    assert command(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1 and not PASSED


def test_one_that_fails_does_not_end_the_others(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(setup: Setup) -> list[Case]:
        raise UnspoolError("needs a package")

    monkeypatch.setattr(experiments, "names", lambda: ["broken", "stub"])
    monkeypatch.setattr(
        experiments, "find", lambda name: replace(STUB, name=name, cases=fail) if name == "broken" else STUB
    )
    assert command(monkeypatch, "all", "--limit", "40", "-m", "toy", "--output", str(stub)) == 1
    captured = capsys.readouterr()
    assert "broken: needs a package" in captured.err and (stub / "stub-toy.json").is_file()


def test_all_continues_after_the_last_finished_experiment(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(setup: Setup) -> list[Case]:
        raise KeyboardInterrupt

    both = {"first": replace(STUB, name="first"), "second": replace(STUB, name="second", cases=stop)}
    monkeypatch.setattr(experiments, "names", lambda: [*both])
    monkeypatch.setattr(experiments, "find", both.__getitem__)
    words = ("all", "--limit", "8", "-m", "toy", "--output", str(stub))
    assert command(monkeypatch, *words) == 130
    both["second"] = replace(STUB, name="second")
    PASSED.clear()
    assert command(monkeypatch, *words) == 0
    assert len(PASSED) == 8 and "first: already done" in capsys.readouterr().err
    assert sorted(file.name for file in stub.iterdir()) == ["first-toy.json", "second-toy.json"]


def test_an_unknown_experiment_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="token_recycling"):
        experiments.find("token_recyclin")
