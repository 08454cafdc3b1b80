"""The page of the viewer as text, and the commands that write it; ``test_browser`` opens it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.trace.traces import canvas, lines, put, recorded, toy
from unspool import Model, UnspoolError
from unspool.cli import app as unspool_app
from unspool.cli.view import view
from unspool.decoding import load as api
from unspool.trace import file as trace_file
from unspool.trace.viewer import page

view_app = typer.Typer()
view_app.command()(view)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return toy(tmp_path / "model")


@pytest.fixture
def trace(tmp_path: Path, model: Model) -> Path:
    return recorded(tmp_path / "run.jsonl", model)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pages that were opened instead of the user's browser."""
    urls: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not urls.append(url))
    return urls


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data

    def data(self) -> list[dict[str, Any]]:
        at = next(i for i, (_, attributes) in enumerate(self.found) if attributes.get("id") == "data")
        loaded: list[dict[str, Any]] = json.loads(self.texts[at])
        return loaded


def test_the_page_holds_the_trace_and_loads_nothing(trace: Path) -> None:
    text = page.page([trace_file.read(trace)], ["run.jsonl"])
    elements = Elements(text)
    assert not {"link", "img", "iframe", "base"} & {tag for tag, _ in elements.found}
    assert not [attributes for _, attributes in elements.found if {"src", "href"} & set(attributes)]
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert any("default-src 'none'" in str(attributes.get("content")) for _, attributes in elements.found)
    (data,) = elements.data()
    steps = [line for line in lines(trace) if line["kind"] == "step"]
    assert [step["emitted"] for step in data["steps"]] == [step["emitted"] for step in steps]
    assert data["texts"]["6"] == "<b>&" and data["method"] == "token_recycling" and not data["truncated"]


def test_nothing_of_a_trace_becomes_markup(trace: Path) -> None:
    evil = "</script><script>alert(1)</script>\u2028<!--"
    first, start, *rest = lines(trace)
    for row in rest:
        if "texts" in row:
            row["texts"] = dict.fromkeys(row["texts"], evil)
            row["pieces"] = [evil] * len(row["pieces"])
    put(
        trace, [first | {"model": evil, "prompt": evil}, start | {"method": evil, "settings": {"backend": evil}}, *rest]
    )
    elements = Elements(page.page([trace_file.read(trace)], [evil]))
    assert [tag for tag, _ in elements.found].count("script") == 2
    (data,) = elements.data()
    assert data["name"] == data["model"] == data["texts"]["4"] == evil


def test_view_writes_the_page_beside_the_trace_and_opens_it(trace: Path, opened: list[str]) -> None:
    result = CliRunner().invoke(view_app, [str(trace)], catch_exceptions=False)
    expected = trace.with_suffix(".html")
    assert result.stdout == f"{expected}\n"
    assert opened == [expected.resolve().as_uri()]
    assert len(Elements(expected.read_text("utf-8")).data()) == 1


def test_view_takes_two_traces_and_a_file(trace: Path, tmp_path: Path, opened: list[str]) -> None:
    other, html = canvas(tmp_path / "other.jsonl", trace), tmp_path / "both.html"
    CliRunner().invoke(view_app, [str(trace), str(other), "--html", str(html), "--no-open"], catch_exceptions=False)
    first, second = Elements(html.read_text("utf-8")).data()
    assert (first["name"], second["name"]) == (str(trace), str(other))
    assert len(second["canvas"]) == 3
    assert not opened


def test_without_a_browser_view_says_so(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    result = CliRunner().invoke(view_app, [str(trace)], catch_exceptions=False)
    assert "no browser was found" in result.stderr and result.exit_code == 0


def test_a_page_never_replaces_a_trace(trace: Path, tmp_path: Path) -> None:
    before = trace.read_bytes()
    for arguments in ([str(trace), "--html", str(trace)], [str(tmp_path / "x.html"), str(trace), "--html", str(trace)]):
        with pytest.raises(UnspoolError, match="would replace"):
            CliRunner().invoke(view_app, arguments, catch_exceptions=False)
    assert trace.read_bytes() == before
    with pytest.raises(UnspoolError, match=r"another ending, such as \.jsonl"):
        page.page_path(Path("run.html"))


def test_mistakes_leave_no_page(trace: Path, tmp_path: Path) -> None:
    put(trace, [lines(trace)[0] | {"version": 7}])
    for arguments, message in (
        ([str(trace)], "format 7"),
        ([str(tmp_path / "none.jsonl")], "cannot read"),
        ([str(trace), "--html", str(tmp_path / "no" / "x.html")], "there is no directory"),
    ):
        with pytest.raises(UnspoolError, match=message):
            CliRunner().invoke(view_app, [*arguments, "--no-open"], catch_exceptions=False)
    assert not list(tmp_path.glob("*.html"))


# unspool generate --trace, --view


@pytest.fixture
def generate(model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(api, "load", lambda *_, **__: model)
    options = ["--method", "suffix", "--max-new-tokens", "12", "--no-chat"]

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(unspool_app, ["generate", "the the", *options, *arguments], catch_exceptions=False)

    return invoke


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_generate_writes_a_trace(generate: Any, tmp_path: Path, opened: list[str], as_json: list[str]) -> None:
    plain = generate(*as_json)
    result = generate("--trace", str(tmp_path / "new.jsonl"), *as_json)
    trace = trace_file.read(tmp_path / "new.jsonl")
    steps = [event for event in trace.events if event["kind"] == "step"]
    text = "".join(piece for step in steps for piece in step["pieces"])
    if as_json:
        assert json.loads(result.stdout)["token_ids"] == json.loads(plain.stdout)["token_ids"]
    else:
        assert result.stdout == plain.stdout == text + "\n"
    assert trace.header["prompt_token_ids"] == [4, 4] and not trace.truncated
    assert all(len(best) == 8 for step in steps for best in step["alternatives"])
    assert not opened


def test_generate_shows_the_run(generate: Any, tmp_path: Path, opened: list[str]) -> None:
    generate("--trace", str(tmp_path / "new.jsonl"), "--view")
    assert opened == [(tmp_path / "new.html").resolve().as_uri()]


def test_generate_shows_a_run_without_a_trace_of_the_users(
    generate: Any, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = generate("--view")
    (html,) = tmp_path.glob("unspool-*/run.html")
    assert opened == [html.resolve().as_uri()]
    assert f"page: {html}" in result.stderr


def test_generate_refuses_a_trace_that_cannot_be_written_before_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "load", lambda *_, **__: pytest.fail("loaded"))
    for arguments, message in (
        (["--trace", str(tmp_path)], "is a directory"),
        (["--trace", str(tmp_path / "no" / "run.jsonl")], "there is no directory"),
        (["--trace", str(tmp_path / "run.html"), "--view"], "would replace the trace"),
    ):
        with pytest.raises(UnspoolError, match=message):
            CliRunner().invoke(unspool_app, ["generate", "x", *arguments], catch_exceptions=False)
