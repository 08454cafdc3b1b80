"""The viewer in Chromium: hover, keys, two traces, a canvas, a cut trace, narrow and dark screens; never an error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trace.conftest import Open
from tests.trace.traces import lines, put

Keys = pytest.importorskip("selenium.webdriver.common.keys", reason="selenium is missing: pip install selenium").Keys


def steps(directory: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(directory / name) if line["kind"] == "step"]


def test_every_token_shows_where_it_came_from(show: Open, directory: Path) -> None:
    shown = show("drafted.jsonl")
    expected = [
        step["sources"][step["accepted"][i + 1]] if i + 1 < len(step["accepted"]) else "model"
        for step in steps(directory, "drafted.jsonl")
        for i in range(len(step["emitted"]))
    ]
    classes = [token.get_attribute("class").split()[1] for token in shown.all(".text .t")]
    assert classes == [{"model": "model", "token_recycling": "d0"}[source] for source in expected]
    assert set(classes) == {"model", "d0"}
    drafted = shown.one(".text .d0")
    assert drafted.value_of_css_property("text-decoration-line") == "underline", "colour alone is not enough"
    assert [item.text for item in shown.all("#legend li")] == ["the model itself", "token_recycling"]


def test_the_text_that_one_copies_is_the_models(show: Open, directory: Path, tmp_path: Path) -> None:
    header, start, prefill, first, *rest = lines(directory / "plain.jsonl")
    rows = [header, start, prefill, first | {"pieces": ["\n"]}, *rest]
    shown = show(put(tmp_path / "run.jsonl", rows))
    assert shown.text(".text") == "".join(piece for row in rows for piece in row.get("pieces", []))
    hints = {element.get_attribute("data-hint") for element in shown.all(".text [data-hint]")}
    assert {"↵", "‹F0›"} <= hints, "what cannot be seen has no sign"


def test_hovering_shows_the_card_of_a_token(show: Open, directory: Path) -> None:
    shown = show("warm.jsonl")
    assert not shown.one("#card").is_displayed()
    flat = [
        (token, step["logprobs"][i], step["ranks"][i], step["alternatives"][i], step["margins"][i])
        for step in steps(directory, "warm.jsonl")
        for i, token in enumerate(step["emitted"])
    ]
    index = next(i for i, (_, _, rank, best, _) in enumerate(flat) if rank >= len(best))
    token, logprob, rank, best, margin = flat[index]
    shown.hover(shown.all(".text .t")[index])
    card = shown.one("#card")
    assert card.is_displayed()
    facts = dict(zip([e.text for e in shown.all("#card dt")], [e.text for e in shown.all("#card dd")], strict=True))
    assert facts["id"] == str(token)
    assert facts["probability"] == f"{100 * math.exp(logprob):.1f} %"
    assert facts["rank"] == str(rank + 1)
    assert float(facts["margin"].split()[0]) == pytest.approx(margin, rel=0.01)
    # The best tokens, then the one that was drawn, marked.
    assert len(shown.all("#card tr")) == len(best) + 1
    assert [e.get_attribute("class") for e in shown.all("#card tr")] == [""] * len(best) + ["taken"]
    shown.hover(shown.one("h1"))
    assert not card.is_displayed()


def test_keys_step_through_the_passes(show: Open, directory: Path) -> None:
    passes = steps(directory, "drafted.jsonl")
    shown = show("drafted.jsonl")

    def at(number: int) -> None:
        step = passes[number]
        assert shown.text("#where") == f"pass {number + 1} of {len(passes)}"
        assert len(shown.all(".text .now")) == len(step["emitted"])
        assert len(shown.all(".node.own")) == (len(step["emitted"]) == len(step["accepted"]))
        assert len(shown.all(".node")) == len(step["tokens"]) + len(shown.all(".node.own"))
        assert len(shown.all(".node.accepted")) == min(len(step["accepted"]), len(step["emitted"]) + 1)
        total = sum(step[name] for name in ("draft_ms", "score_ms", "accept_ms", "observe_ms"))
        assert f"{total:.2f} ms" in shown.text(".pass-part h3") or total >= 10
        assert [row.text.split()[0] for row in shown.all(".times tr")] == ["draft", "score", "accept", "observe"]

    at(0)
    shown.press(Keys.ARROW_RIGHT)
    at(1)
    shown.press(Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    at(2)
    shown.press(Keys.END)
    at(len(passes) - 1)
    shown.press(Keys.ARROW_RIGHT)
    at(len(passes) - 1)
    shown.press(Keys.HOME)
    at(0)
    shown.one("#next").click()
    at(1)
    shown.one("#slider").send_keys(Keys.ARROW_RIGHT)
    at(2)
    assert shown.one("#slider").get_attribute("aria-valuetext") == f"pass 3 of {len(passes)}"


def test_the_keyboard_reaches_every_token(show: Open, directory: Path) -> None:
    passes = steps(directory, "drafted.jsonl")
    shown = show("drafted.jsonl")
    shown.press(Keys.END)
    shown.one("summary").click()
    shown.press(Keys.TAB)
    focused = shown.driver.switch_to.active_element
    first = sum(len(step["emitted"]) for step in passes[:-1])
    assert focused.get_attribute("data-i") == str(first), "Tab enters the text at the pass that is looked at"
    assert shown.one("#card").is_displayed()
    shown.press(Keys.ARROW_LEFT)
    assert shown.driver.switch_to.active_element.get_attribute("data-i") == str(first - 1)
    assert shown.text("#where") == f"pass {len(passes) - 1} of {len(passes)}"
    shown.press(Keys.ESCAPE)
    assert not shown.one("#card").is_displayed()
    shown.press(Keys.HOME)
    assert shown.driver.switch_to.active_element.get_attribute("data-i") == "0"
    assert shown.text("#where") == f"pass 1 of {len(passes)}"


def test_nodes_of_the_tree_tell_what_became_of_them(show: Open, directory: Path) -> None:
    passes = steps(directory, "drafted.jsonl")
    shown = show("drafted.jsonl")
    number = next(i for i, step in enumerate(passes) if 1 < len(step["accepted"]) < len(step["tokens"]))
    shown.press(*[Keys.ARROW_RIGHT] * number)
    accepted, rejected = shown.all(".node.accepted.d0")[-1], shown.one(".node.rejected")
    shown.hover(accepted)
    assert "probability" in shown.text("#card")
    shown.hover(rejected)
    assert "rejected" in shown.text("#card") and "probability" not in shown.text("#card")
    # The last accepted node and the model's token after it, if there is one, stand in the root's row.
    rows = {rect.get_attribute("y") for rect in shown.all(".node.accepted rect, .node.own rect")}
    assert len(rows) == 1


def test_a_text_that_ends_within_a_draft(show: Open, directory: Path, tmp_path: Path) -> None:
    rows = lines(directory / "drafted.jsonl")
    at = next(i for i, row in enumerate(rows) if row["kind"] == "step" and len(row["accepted"]) > 2)
    per_token = ("emitted", "margins", "logprobs", "alternatives", "ranks", "pieces")
    short = rows[at] | {name: rows[at][name][:1] for name in per_token}
    shown = show(put(tmp_path / "run.jsonl", [*rows[:at], short, rows[-1]]))
    shown.press(Keys.END)
    assert len(shown.all(".node.accepted")) == 2 and not shown.all(".node.own")
    assert len(shown.all(".node.beyond")) == len(short["accepted"]) - 2
    shown.hover(shown.one(".node.beyond"))
    assert "the text ended before it" in shown.text("#card")
    assert "d0" in shown.all(".text .t")[-1].get_attribute("class"), "the last token was drafted"


def test_a_click_on_the_timeline_goes_to_that_pass(show: Open, directory: Path) -> None:
    passes = steps(directory, "drafted.jsonl")
    shown = show("drafted.jsonl")
    timeline = shown.one(".timeline")
    width = timeline.size["width"] / len(passes)
    offset = (5.5 * width) - timeline.size["width"] / 2
    shown.actions().move_to_element_with_offset(timeline, int(offset), 0).click().perform()
    assert shown.text("#where") == f"pass 6 of {len(passes)}"


def test_two_traces_step_together_and_mark_the_first_difference(show: Open, directory: Path) -> None:
    names = ("plain.jsonl", "warm.jsonl")
    first, second = ([token for step in steps(directory, name) for token in step["emitted"]] for name in names)
    index = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    shown = show(*names)
    assert [mark.get_attribute("data-i") for mark in shown.all(".difference")] == [str(index)] * 2
    assert f"First difference at token {index + 1}:" in shown.text(".note")
    shown.one("#difference").click()
    assert shown.text("#where").startswith(f"pass {index + 1} of {len(first)} · ")  # plain: one token a pass
    for panel in shown.all(".trace"):
        now = [int(token.get_attribute("data-i")) for token in panel.find_elements("css selector", ".now")]
        assert now[0] <= index <= now[-1]


def test_two_traces_of_the_same_text_say_so_and_stay_at_the_same_place(show: Open, directory: Path) -> None:
    shown = show("plain.jsonl", "drafted.jsonl")
    assert shown.text(".note") == "Both traces emitted the same 40 tokens." and not shown.all(".difference")
    for _ in range(12):
        shown.press(Keys.ARROW_RIGHT)
        plain, drafted = (
            [int(token.get_attribute("data-i")) for token in panel.find_elements("css selector", ".now")]
            for panel in shown.all(".trace")
        )
        assert plain[0] in drafted
    assert plain == [12]


def test_a_text_that_ends_early_differs_there_unless_it_was_cut(show: Open, directory: Path, tmp_path: Path) -> None:
    header, start, prefill, *rest = lines(directory / "plain.jsonl")
    ended = put(tmp_path / "ended.jsonl", [header, start, prefill, *rest[:9], rest[-1]])
    cut = put(tmp_path / "cut.jsonl", [header, start, prefill, *rest[:9]])
    shown = show("plain.jsonl", ended)
    assert "First difference at token 10" in shown.text(".note") and "against the end" in shown.text(".note")
    assert len(shown.all(".difference")) == 1 and len(shown.all(".ends-early")) == 1
    shown = show("plain.jsonl", cut)
    first, second = (note.text for note in shown.all(".note"))
    assert "cut.jsonl was cut off after 9 passes" in first
    assert second == "Both traces are the same as far as both go, 9 tokens."


def test_a_trace_cut_before_its_first_pass_opens(show: Open, directory: Path, tmp_path: Path) -> None:
    shown = show(put(tmp_path / "cut.jsonl", lines(directory / "plain.jsonl")[:1]))
    assert "was cut off after 0 passes" in shown.text(".note")
    assert not shown.one("#controls").is_displayed()


def test_a_canvas_unmasks_step_by_step(show: Open) -> None:
    shown = show("canvas.jsonl")
    seen = []
    for _ in range(3):
        fresh = [int(slot.get_attribute("data-i")) for slot in shown.all(".text .fresh")]
        seen.append((len(shown.all(".text .mask")), fresh))
        shown.press(Keys.ARROW_RIGHT)
    assert seen == [(4, [0, 2]), (3, [1]), (0, [3, 4, 5])]
    shown.press(Keys.HOME, Keys.ARROW_RIGHT)
    assert "Step 2, block 1: 1 slot filled, 3 masks left, 12.5 ms" in shown.text(".pass-part h3")
    shown.hover(shown.all(".text .t")[2])
    assert "filled instep 1" in shown.text("#card") and "50.0 %" in shown.text("#card")
    shown.hover(shown.all(".text .mask")[0])
    assert "mask" in shown.text("#card") and "confidence" not in shown.text("#card")


def test_markup_in_a_trace_is_shown_as_text(show: Open, directory: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">'\"&"
    header, start, *rest = lines(directory / "drafted.jsonl")
    for row in rest:
        if row["kind"] == "step":
            row["texts"] = dict.fromkeys(row["texts"], evil)
            row["pieces"] = [evil] * len(row["pieces"])
            row["sources"] = ["root"] + [evil] * (len(row["sources"]) - 1)
    shown = show(
        put(tmp_path / "evil.jsonl", [header | {"model": evil, "prompt": evil}, start | {"method": evil}, *rest])
    )
    shown.press(*[Keys.ARROW_RIGHT] * 6)
    for selector in (".text .t", ".node"):
        shown.hover(shown.one(selector))
    assert not shown.all("img") and shown.driver.title != "owned"
    assert shown.one(".text .t").text == evil and evil in shown.text("#legend")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("traces", [["drafted.jsonl"], ["plain.jsonl", "warm.jsonl"], ["canvas.jsonl"]])
def test_nothing_overflows_the_screen(show: Open, traces: list[str], width: int, colours: str) -> None:
    shown = show(*traces, width=width, colours=colours)
    assert shown.run("return document.documentElement.scrollWidth") <= width
    shown.hover(shown.one(".text .t"))
    box = shown.run("const b = document.getElementById('card').getBoundingClientRect(); return [b.left, b.right]")
    assert box[0] >= 0 and box[1] <= width
    red, *_ = (int(n) for n in shown.one("body").value_of_css_property("background-color")[5:-1].split(",")[:3])
    assert (red > 200) == (colours == "light")


def test_thousands_of_tokens_draw_one_tree(show: Open, directory: Path, tmp_path: Path) -> None:
    header, start, prefill, *rest = lines(directory / "drafted.jsonl")
    longer: list[dict[str, Any]] = []
    position = rest[0]["position"]
    while position < 2010:
        for row in rest[:-1]:
            longer.append(row | {"index": len(longer), "position": position})
            position += len(row["emitted"])
    shown = show(put(tmp_path / "long.jsonl", [header, start, prefill, *longer, rest[-1]]))
    assert shown.run("return document.querySelectorAll('.text .t').length") == position - rest[0]["position"] >= 2000
    assert len(shown.all("svg.tree")) == 1
    shown.press(Keys.END)
    last = shown.run("return document.querySelector('.text .now').getBoundingClientRect().top")
    frame = shown.run("const b = document.querySelector('.text').getBoundingClientRect(); return [b.top, b.bottom]")
    assert frame[0] <= last <= frame[1], "the pass that is looked at was not scrolled to"
