"""The report says what the results say, all of it, whatever they lack."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.report import results
from tests.report.page import Page, svgs
from unspool.bench.result import Bench, Spread
from unspool.bench.summary import summarise
from unspool.proof.result import Proof
from unspool.report import page as html
from unspool.report.words import number, quartiles, share

BENCH = results.bench()
PROOF = results.proof()


@pytest.fixture(scope="module")
def bench_html() -> str:
    return html.render([BENCH])


@pytest.fixture(scope="module")
def page(bench_html: str) -> Page:
    return Page(bench_html)


@pytest.fixture(scope="module")
def proof_page() -> Page:
    return Page(html.render([PROOF]))


def chosen(bench: Bench, *contestants: str, **changes: Any) -> Bench:
    runs = [run for run in bench.runs if run.contestant in contestants]
    settings = {name: value for name, value in bench.settings.items() if name in contestants}
    verdicts = {name: value for name, value in bench.verdicts.items() if name in contestants}
    return replace(bench, runs=runs, settings=settings, verdicts=verdicts, **changes)


def test_every_number_of_the_summary_is_in_its_table(page: Page) -> None:
    for row in summarise(BENCH):
        key = (row.category, row.contestant)
        speed = row.tokens_per_second
        assert page.row("Tokens per second", *key) == [
            number(row.runs, 0),
            number(speed.median, 1),
            quartiles(speed, 1),
            number(row.first_seconds),
        ]
        assert row.ratio is not None
        if row.contestant != "plain":
            cells = [number(row.runs, 0), number(row.ratio.median), quartiles(row.ratio), number(row.ratio_mean)]
            total = f"{number(row.ratio_totals)}{' slower' if row.slower else ''}"
            assert page.row("Speed against plain decoding", *key) == [*cells, total]
        if row.passes is not None:
            cells = page.row("Accepted tokens against cost", *key)
            assert (cells[0], cells[1], cells[4]) == (
                number(row.mean_accepted_tokens),
                number(row.passes, 0),
                share(row.overhead),
            )
        if row.quality is not None:
            assert page.row("Quality", *key) == [share(row.quality)]
        if row.category == "all" and row.by_depth:
            header = page.tables["Acceptance by depth", "Accepted of drafted nodes, per depth, all prompts"][0]
            column = header.index(row.contestant) - 1
            for depth, (accepted, drafted) in enumerate(row.by_depth, 1):
                cell = page.row("Acceptance by depth", str(depth))[column]
                assert cell == f"{share(accepted / drafted)} ({accepted} of {drafted})"
        if row.category == "all" and row.contestant in ("auto", "suffix", "token_recycling"):
            header = page.tables["Where the tokens come from", "Emitted tokens by drafter, all prompts"][0][1:]
            cells = page.row("Where the tokens come from", row.contestant)
            assert {name: cell for name, cell in zip(header, cells, strict=True) if cell != "0"} == {
                name: number(count, 0) for name, count in row.by_source.items()
            }


def test_cost_of_a_pass_is_that_of_the_runs(page: Page) -> None:
    def ms(name: str) -> float:
        runs = [run for run in BENCH.runs if run.contestant == name and run.category == "chat"]
        return 1000 * sum(run.decode_seconds or 0 for run in runs) / sum(run.passes or 0 for run in runs)

    cells = page.row("Accepted tokens against cost", "chat", "suffix")
    assert cells[2:4] == [number(ms("suffix"), 1), number(ms("suffix") / ms("plain"))]


def test_the_glance_tells_equality_and_memory(page: Page) -> None:
    assert page.row("At a glance", "token_recycling")[-4:] == ["1\u202f350", "141", "3", "0"]
    assert page.row("At a glance", "llama_cpp (peer)")[-3:] == ["–", "–", "–"]


def test_the_cost_curve_is_in_its_table(page: Page) -> None:
    assert BENCH.curve is not None
    assert page.row("Cost curve", "16") == [
        f"{number(row[5], 1)} ({number(row[5] / row[0])} ×)" for row in BENCH.curve["ms"]
    ]


def test_the_headline_says_by_how_much_with_what_spread_and_whether_the_text_is_the_same(page: Page) -> None:
    best = next(row for row in summarise(BENCH) if (row.contestant, row.category) == ("auto", "all"))
    assert best.ratio is not None
    assert f"auto decodes qwen2.5-coder-0.5b {number(best.ratio_totals)} times as fast as plain decoding" in page.text
    assert f"per prompt {number(best.ratio.median)}, quartiles {quartiles(best.ratio)}" in page.text
    assert "Of auto's 144 runs, 144 produced plain decoding's exact text; 0 ties, 0 faults." in page.text


def test_ratios_to_peers_are_prompt_by_prompt() -> None:
    # Two prompts on which the method is 2 and 4 times as fast as the peer.
    runs = [run for run in results.bench(prompts=1, repeats=1).runs if run.category in ("chat", "summarise")]
    speeds = {
        ("auto", "chat"): 20,
        ("llama_cpp", "chat"): 10,
        ("auto", "summarise"): 80,
        ("llama_cpp", "summarise"): 20,
    }
    runs = [
        replace(run, timed_tokens=speeds[run.contestant, run.category], seconds=1.0)
        for run in runs
        if run.contestant in ("auto", "llama_cpp")
    ]
    text = Page(html.render([replace(BENCH, runs=runs)])).text
    assert "auto is 3.00 times as fast as llama_cpp (2.50 to 3.50)" in text


def test_slower_is_said_in_the_headline_the_tables_and_the_chart() -> None:
    runs = [replace(run, seconds=run.seconds * (9 if run.contestant == "auto" else 1)) for run in BENCH.runs]
    text = html.render([chosen(replace(BENCH, runs=runs), "plain", "auto", "transformers")])
    page = Page(text)
    assert "No method decodes qwen2.5-coder-0.5b faster than plain decoding: the best, auto, is slower" in page.text
    assert page.row("At a glance", "auto")[3].endswith(" slower")
    assert page.row("At a glance", "plain")[3] == "1.00"
    tips = re.findall(r"<title>(auto, all: .*ratio of totals.*?)</title>", text)
    assert tips and all(tip.endswith("slower than plain in total") for tip in tips)


def test_methods_with_other_weights_do_not_make_the_headline() -> None:
    runs = [*BENCH.runs]
    runs += [replace(r, contestant="auto@int4", seconds=r.seconds / 3) for r in runs if r.contestant == "auto"]
    settings = {**BENCH.settings, "auto@int4": {"weights": "int4"}}
    assert "auto decodes" in Page(html.render([replace(BENCH, runs=runs, settings=settings)])).text


def test_what_was_left_out_machine_versions_and_settings_are_told(page: Page) -> None:
    assert page.row("How it was measured", "vllm") == ["not installed; pip install vllm"]
    assert page.row("How it was measured", "machine: cpu") == ["AMD EPYC"]
    assert page.row("How it was measured", "versions: openvino") == ["2026.4.1"]
    assert page.row("How it was measured", "limit") == ["–"]
    assert page.row("How it was measured", "transformers") == ["weights float32, threads 2"]
    charts = ("Speed against plain decoding", "Tokens per second", "Cost curve", "Acceptance by depth")
    assert page.text.count(results.BENCH_COMMAND) > len(charts)


def test_the_proof_is_told_in_full(proof_page: Page) -> None:
    assert "1 fault, in token_recycling. 93 of 96 runs produce plain decoding's exact text." in proof_page.text
    assert "11\u202f805 tokens were compared; 2 ties." in proof_page.text
    rows = [row for row in proof_page.rows("Equality") if row[0] == "suffix"]
    assert rows == [["suffix", "identical", "identity", "0", "24", "22", "2\u202f817", "2", "0", "holds"]]
    assert proof_page.row("Equality", "token_recycling")[-2:] == ["1", "fault"]
    assert proof_page.row("Equality", "lossless", "distribution", "1", "smallest p value") == ["0.083"]
    assert next(row for row in proof_page.rows("Equality") if row[:2] == ["typical", "lossy"])[-1] == "measured"
    assert proof_page.row("Noise of the backend", "64") == ["0.00024", "3.6e-05"]
    assert list(proof_page.rows("Differences")) == [
        ["suffix", "0", "3", "0", "17", "284", "991", "8e-05", "8e-05", "tie"],
        ["suffix", "0", "11", "7", "96", "end", "15", "–", "–", "tie"],
        ["token_recycling", "0", "5", "0", "2", "40", "41", "1.75", "2.5", "fault"],
    ]


def test_a_run_with_several_differences_is_one_run_in_the_chart() -> None:
    (row,) = [row for row in PROOF.rows if row.method == "suffix"]
    again = replace(row, prompts=4, identical=3, ties=3, differences=[row.differences[0]] * 3)
    text = html.render([replace(PROOF, rows=[again])])
    assert "suffix, temperature 0: tie 25.0\u202f% (1)" in text


def test_no_noise_is_said_to_be_exactly_none() -> None:
    noise = [replace(point, max=0.0, rms=0.0) for point in PROOF.noise]
    text = Page(html.render([replace(PROOF, noise=noise)])).text
    assert "noise is exactly 0" in text and "bit-identical" in text


@pytest.mark.parametrize(
    "bench",
    [
        chosen(BENCH, "plain", "auto", "suffix", left_out={}),
        chosen(BENCH, "auto", "llama_cpp"),
        chosen(BENCH, "plain"),
        chosen(BENCH, "plain", "llama_cpp"),
        chosen(BENCH, "llama_cpp", "transformers", curve=None, memory={}),
        chosen(BENCH, curve=None, memory={}, left_out={"llama_cpp": "crashed"}),
        replace(BENCH, runs=BENCH.runs[:7]),
        replace(BENCH, runs=[replace(run, timed_tokens=0, seconds=0.0) for run in BENCH.runs]),
    ],
    ids=["no peers", "no plain", "plain alone", "no methods", "peers alone", "nobody", "one run each", "no speeds"],
)
def test_incomplete_benchmarks_are_told(bench: Bench) -> None:
    text = html.render([bench])
    assert "nan" not in re.findall(r"\b[a-z]+\b", Page(text).text)
    assert all(len(chart) > 1 for chart in svgs(text))


@pytest.mark.parametrize(
    "proof", [replace(PROOF, noise=[]), replace(PROOF, rows=[]), replace(PROOF, rows=PROOF.rows[-2:], noise=[])]
)
def test_incomplete_proofs_are_told(proof: Proof) -> None:
    assert "No fault" in Page(html.render([proof])).text or proof.faults


def test_benchmarks_of_the_same_thing_are_set_side_by_side() -> None:
    def slower(run: Any) -> Any:
        return replace(run, seconds=run.seconds * 1.1) if run.contestant == "auto" else run

    page = Page(html.render([BENCH, replace(BENCH, runs=[slower(run) for run in BENCH.runs])]))
    assert "Benchmark: qwen2.5-coder-0.5b on mixed, result 2" in page.text
    heading = "Run again: qwen2.5-coder-0.5b on mixed"
    assert page.row(heading, "auto")[2] == "10.0\u202f%"
    assert page.row(heading, "suffix")[2] == "0.0\u202f%"
    other = Page(html.render([BENCH, replace(BENCH, suite="humaneval")]))
    assert not [section for section, _ in other.tables if section.startswith("Run again")]


def test_words() -> None:
    assert number(12345.678, 1) == "12\u202f345.7"
    assert number(None) == "–"
    assert quartiles(Spread(2.0, 1.0, 3.0), 1) == "1.0 to 3.0"
