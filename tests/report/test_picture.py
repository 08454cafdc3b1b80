"""The picture for the README: whole, in both themes, true to the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.report import results
from unspool.bench.summary import summarise
from unspool.errors import UnspoolError
from unspool.report import picture
from unspool.report.theme import DARK, LIGHT
from unspool.report.words import number

BENCH = results.bench()


@pytest.fixture(scope="module")
def svg(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("picture") / "bench.svg"
    picture.write(BENCH, path)
    return path.read_text("utf-8")


def test_it_names_every_contestant_and_its_speed(svg: str) -> None:
    words = [element.text for element in ElementTree.fromstring(svg).iter()]
    for row in summarise(BENCH):
        if row.category == "all":
            assert row.contestant in words
            timed = [run for run in BENCH.runs if run.contestant == row.contestant and run.timed_tokens]
            speed = sum(run.timed_tokens for run in timed) / sum(run.seconds for run in timed)
            slower = " (slower than plain)" if row.slower else ""
            assert f"{number(speed, 1)}{slower}" in words
    best = next(row for row in summarise(BENCH) if (row.contestant, row.category) == ("auto", "all"))
    assert f"auto: {number(best.ratio_totals)} × as fast as plain decoding" in words


def test_every_colour_has_a_dark_one(svg: str) -> None:
    sheet, drawing = svg.split("</style>")
    colours = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", drawing))
    assert ("fill", LIGHT["card"]) in colours
    role_of = {colour: role for role, colour in LIGHT.items()}
    for what, colour in colours:
        assert f'[style*="{what}: {colour}"]{{{what}:{DARK[role_of[colour]]}!important}}' in sheet


def test_a_slower_method_is_called_slower(tmp_path: Path) -> None:
    slow = ("auto", "suffix", "token_recycling")
    runs = [replace(run, seconds=run.seconds * (9 if run.contestant in slow else 1)) for run in BENCH.runs]
    picture.write(replace(BENCH, runs=runs), tmp_path / "slow.svg")
    assert "× plain decoding, slower" in (tmp_path / "slow.svg").read_text("utf-8")


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match="no run that has a speed"):
        picture.write(replace(BENCH, runs=[]), tmp_path / "none.svg")
    assert not list(tmp_path.iterdir())
