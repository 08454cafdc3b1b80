"""The page itself: well-formed, self-contained, accessible, and nothing that a result says can break it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report import results
from tests.report.page import Page, svgs
from unspool.errors import UnspoolError
from unspool.report import page as html

BENCH = results.bench()
PROOF = results.proof()
EVIL = "<script>alert('x')</script>&\"$a$ #010101 id=\"1.23456"


@pytest.fixture(scope="module")
def bench_html() -> str:
    return html.render([BENCH])


@pytest.fixture(scope="module")
def page(bench_html: str) -> Page:
    return Page(bench_html)


def test_charts_are_well_formed_named_and_drawn_for_both_widths(bench_html: str) -> None:
    charts = svgs(bench_html)
    assert [chart.get("class") for chart in charts] == ["wide", "narrow"] * 7
    for chart in charts:
        assert chart.get("role") == "img" and chart.get("aria-label")
        (described,) = [e for e in chart if e.get("id") == chart.get("aria-describedby")]
        assert described.text
    assert "#0101" not in bench_html


def test_ids_are_unique_and_references_lead_somewhere() -> None:
    page = Page(html.render([BENCH, results.bench(1), PROOF]))
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        for target in re.findall(r"url\(#([^)]*)\)", value) + ([value[1:]] if value.startswith("#") else []):
            assert target in ids, (name, value)


def test_nothing_is_loaded(bench_html: str) -> None:
    assert set(re.findall(r"https?://[^\s\"']+", bench_html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    page = Page(bench_html)
    tags = {tag for tag, _, _ in page.attributes}
    assert not tags & {"script", "img", "iframe", "object", "image"}
    assert not [value for _, name, value in page.attributes if name == "src"]
    assert [value for tag, name, value in page.attributes if tag == "link" and name == "href"] == ["data:,"]
    assert "@import" not in bench_html and not re.findall(r"url\((?!#)", bench_html)


def test_tables_have_captions_and_scopes(page: Page, bench_html: str) -> None:
    assert page.tables and all(caption for _, caption in page.tables)
    headers = re.findall(r"<th\b[^>]*>", bench_html)
    assert headers and all('scope="col"' in header or 'scope="row"' in header for header in headers)


@pytest.mark.filterwarnings("error")
def test_all_text_is_escaped() -> None:
    runs = [
        replace(run, contestant=f"{run.contestant}{EVIL}", category=EVIL, by_source={EVIL: 1} if run.by_source else {})
        for run in BENCH.runs
    ]
    bench = replace(
        BENCH,
        runs=runs,
        model=EVIL,
        suite=EVIL,
        command=EVIL,
        about={EVIL: {EVIL: EVIL}},
        left_out={EVIL: EVIL},
        settings={EVIL: {EVIL: EVIL}},
    )
    rows = [replace(row, method=EVIL, details={EVIL: EVIL}) for row in PROOF.rows]
    text = html.render([bench, replace(PROOF, rows=rows, model=EVIL, settings={EVIL: EVIL})])
    page = Page(text)
    assert "script" not in {tag for tag, _, _ in page.attributes}
    assert page.row("How it was made", EVIL) == [EVIL]
    assert len(svgs(text)) > 10


def test_text_in_charts_stays_as_it_is() -> None:
    odd = 'v1.23456 id="x" $a$'
    runs = [replace(run, category=odd) if run.category == "chat" else run for run in BENCH.runs]
    words = [element.text for chart in svgs(html.render([replace(BENCH, runs=runs)])) for element in chart.iter()]
    assert odd in words


def test_a_report_is_small_and_the_same_each_time(bench_html: str) -> None:
    assert len(bench_html.encode()) < 500_000
    assert html.render([BENCH]) == bench_html


def test_write_makes_a_whole_file_or_tells_why_not(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write([PROOF], path)
    assert path.read_text("utf-8") == html.render([PROOF])
    with pytest.raises(UnspoolError, match="make it first"):
        html.write([PROOF], tmp_path / "none" / "report.html")
    with pytest.raises(UnspoolError, match="name of a file"):
        html.write([PROOF], tmp_path)
    with pytest.raises(UnspoolError, match="no results"):
        html.write([], path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
