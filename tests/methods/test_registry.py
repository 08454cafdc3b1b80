"""The registry: names without imports, installed methods of every kind, broken packages, specs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conformance.small_model import load
from unspool import UnspoolError, methods
from unspool.backends.toy import ToyModel
from unspool.cli import app
from unspool.conformance import channel, probe
from unspool.engine.ensemble import Ensemble, Member
from unspool.engine.method import (
    ACCEPTANCE,
    CHANNEL,
    COMPRESSOR,
    CONSTRAINT,
    DRAFTER,
    KINDS,
    PROBE,
    SEARCH,
    SHAPER,
    UNMASK,
)
from unspool.errors import UnknownNameError, UnsupportedError
from unspool.methods.constraints.monitor import MonitorOptions
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rsd import RSDOptions
from unspool.methods.drafters.token_recycling import TokenRecyclingOptions
from unspool.methods.spec import canonical, parse, split

sys.path.append(str(Path(__file__).parents[2] / "docs" / "hooks"))
import generated

sys.path.pop()

SOURCE = '''
from dataclasses import dataclass

from unspool.engine.contracts import Decision
from unspool.engine.method import ACCEPTANCE, CONSTRAINT, DRAFTER, SEARCH, SHAPER, UNMASK, Method
from unspool.engine.option import Options, option
from unspool.engine.search import Candidate, Found
from unspool.engine.tree import TokenTree
from unspool.methods.drafters.plain import Plain, PlainOptions


@dataclass(frozen=True)
class MineOptions(Options):
    """Options.

    Attributes:
        size: a number.
    """

    size: int = option(3, least=1, most=9)


class Rule:
    tests_draws = False

    def __init__(self, size):
        self.size = size

    def decide(self, target, rng):
        return Decision((0,), target.choose(0))


class Shape:
    is_warper = False

    def __init__(self, size):
        self.size = size

    def __call__(self, tokens, logits):
        return logits


class All:
    def enter(self, view): ...

    def select(self, view):
        return view.masked


def find(request):
    return Found((Candidate((1,), -1.0, -1.0, "length"),), 1, 1, {})


def row(kind, guarantee, build):
    return Method(kind, guarantee, "Does it.", "none", MineOptions, build)


my_drafter = row(DRAFTER, "identical", lambda resources, options: Plain(PlainOptions()))
my_rule = row(ACCEPTANCE, "identical", lambda resources, options: Rule(options.size))
my_shaper = row(SHAPER, "lossy", lambda resources, options: Shape(options.size))
my_search = row(SEARCH, "lossy", lambda resources, options: find)
my_policy = row(UNMASK, "lossy", lambda resources, options: All())
my_constraint = row(CONSTRAINT, "valid", lambda resources, options: None)
not_a_method = 5
'''
MINE = ("my_drafter", "my_rule", "my_shaper", "my_search", "my_policy", "my_constraint")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package whose entry points have these names and values."""
    (tmp_path / "my_methods.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(**entries: str) -> None:
        made = [EntryPoint(name, value, "unspool.methods") for name, value in entries.items()]
        monkeypatch.setattr(methods, "entry_points", lambda group: made)
        methods.forget()

    yield install
    monkeypatch.undo()
    methods.forget()
    sys.modules.pop("my_methods", None)


def test_an_installed_method_of_every_kind_is_known_everywhere(package: Callable[..., None]) -> None:
    package(**{name: f"my_methods:{name}" for name in MINE})
    assert set(MINE) <= set(methods.names()) and methods.unavailable() == {}
    pages = generated.pages()
    listed = CliRunner().invoke(app, ["methods", "--json"]).stdout
    for name in MINE:
        assert f'"name": "{name}"' in listed
        assert "at least" in pages[f"methods/{name}.md"] or "in 1 to 9" in pages[f"methods/{name}.md"]
        assert f"[`{name}`]({name}.md)" in pages["methods/index.md"]
    model = load()
    plain = model.generate("ab", method="plain", chat=False, max_new_tokens=5).token_ids
    request: dict[str, Any] = {"chat": False, "max_new_tokens": 5}
    found = model.generate(
        "ab", method="my_drafter:size=4", acceptance="greedy", shapers=["my_shaper:size=2"], **request
    )
    assert found.token_ids == plain and found.method == "my_drafter:size=4"
    assert model.generate("ab", method="plain", acceptance="my_rule:size=2", **request).token_ids == plain
    assert model.search("ab", method="my_search:size=9", max_new_tokens=1).token_ids == [1]
    with pytest.raises(UnspoolError, match="size must lie in 1 to 9, not 10"):
        methods.choose("my_search:size=10", SEARCH)


def test_a_package_that_is_broken_is_named_when_it_is_asked_for_and_not_before(package: Callable[..., None]) -> None:
    package(my_drafter="my_methods:my_drafter", gone="no_such_module:METHOD", wrong="my_methods:not_a_method")
    result = CliRunner().invoke(app, ["methods"])
    assert result.exit_code == 0 and "my_drafter" in result.stdout and "not available: gone" in result.stderr
    assert methods.find("my_drafter", DRAFTER).name == "my_drafter"
    for name, message in (("gone", "cannot be loaded: ModuleNotFoundError"), ("wrong", "is not a Method")):
        with pytest.raises(UnspoolError, match=message):
            methods.find(name, DRAFTER)
        assert message in methods.unavailable()[name]


def test_a_name_that_is_in_use_stays_who_had_it(package: Callable[..., None]) -> None:
    package(suffix="my_methods:my_drafter")
    assert methods.find("suffix", DRAFTER).paper.startswith("SAM Decoding")
    assert any("in use" in why for why in methods.unavailable().values())


def test_every_kind_has_an_example_and_a_heading() -> None:
    assert set(generated.EXAMPLES) == set(KINDS.values())
    assert {row.kind for row in methods.of_kind()} == set(KINDS.values()) - {PROBE, CHANNEL, COMPRESSOR}, (
        "contracts only"
    )


def test_kinds_that_no_built_in_method_fills_are_open(package: Callable[..., None], tmp_path: Path) -> None:
    """One file with a row: it is listed, has a page, is built and is run by the checks of its kind."""
    rows = {"mean": PROBE, "repeat": CHANNEL, "half": COMPRESSOR}
    package(**{name: f"tests.conformance.contracts:{name}" for name in rows})
    pages = generated.pages()
    for name, kind in rows.items():
        listed = CliRunner().invoke(app, ["methods", "--kind", kind.name, "--json"]).stdout
        assert [row["name"] for row in json.loads(listed)] == [name]
        assert f"## {kind.title}" in pages["methods/index.md"] and f"]({name}.md)" in pages["methods/index.md"]
        (code,) = re.findall(r"```python\n(.*?)```", pages[f"methods/{name}.md"], re.DOTALL)
        compile(code, name, "exec")
        assert [row.name for row in methods.of_kind(kind)] == [name]
    made = methods.build("repeat:times=5", CHANNEL, methods.Resources())
    assert channel.check(made, 2) > 13
    toy = ToyModel.random(vocab_size=6, order=3, seed=11)
    read = methods.build("mean", PROBE, methods.Resources(toy))
    probe.check(read, toy, [[0, 1], [2, 3, 4]], Plain, (), tmp_path)
    with pytest.raises(UnsupportedError, match="mean needs hidden states"):
        methods.build("mean", PROBE, methods.Resources(Ensemble([Member(toy)], lambda rows: rows[0])))


def test_names_of_other_kinds_and_of_nothing() -> None:
    with pytest.raises(UnsupportedError, match="beam is not a method but of kind search"):
        methods.find("beam", DRAFTER)
    with pytest.raises(UnknownNameError, match="did you mean 'suffix'"):
        methods.find("sufix", DRAFTER)


# Specs.


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("auto", "auto", {}),
        (" auto ", "auto", {}),
        ("token_recycling:nodes=8", "token_recycling", {"nodes": "8"}),
        ("a:b=1,c=x y,d=", "a", {"b": "1", "c": "x y", "d": ""}),
        ("monitor:project=/a,b/c=d", "monitor", {"project": "/a,b/c=d"}),
        ("rsd(branching=(3, 2), tree='constant')", "rsd", {"branching": (3, 2), "tree": "constant"}),
        ("adadec(threshold=inf)", "adadec", {"threshold": float("inf")}),
        ("adadec(threshold=-inf)", "adadec", {"threshold": float("-inf")}),
    ],
)
def test_specs_are_read(text: str, name: str, values: dict[str, Any]) -> None:
    found = parse(text)
    assert (found.name, found.values) == (name, values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        "a:b",
        "a:=1",
        "a(b)",
        "a(1)",
        "a(**{})",
        "a(b=c)",
        "a(b=1",
        "a b",
        "a:b=1,b=2",
        "a(b=1)x",
        "é(\0",
        "a(b={[]: 1})",
        "a(b=1,b=2)",
        "a(b=" + "-" * 10_000 + "1)",
        "a:" + "b" * 10_000,
    ],
)
def test_what_is_no_spec_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UnspoolError) as caught:
        parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_lists_and_sums_of_specs() -> None:
    text = "auto, token_recycling:nodes=8,k=2,rsd(branching=(3, 2)),plain@int4"
    assert split(text, ",") == ["auto", "token_recycling:nodes=8,k=2", "rsd(branching=(3, 2))", "plain@int4"]
    text = "credit:alpha=1e+5+threshold:threshold=0.8 + adablock(delimiter_ids=[1, 2])"
    assert split(text, "+") == ["credit:alpha=1e+5", "threshold:threshold=0.8", "adablock(delimiter_ids=[1, 2])"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (TokenRecyclingOptions(), "token_recycling"),
        (TokenRecyclingOptions(nodes=8), "token_recycling:nodes=8"),
        (RSDOptions(branching=(3, 2)), "rsd(branching=(3, 2))"),
        (RSDOptions(tree="constant", num_beams=2), "rsd:tree=constant,num_beams=2"),
    ],
)
def test_canonical_specs_give_the_options_back(options: Any, text: str) -> None:
    name = text.partition(":")[0].partition("(")[0]
    assert canonical(name, options) == text
    assert methods.choose(text, DRAFTER).options == options == methods.choose(options, DRAFTER).options


def test_texts_are_read_as_the_type_of_their_option() -> None:
    chosen = methods.choose("stand:nodes=7", DRAFTER)
    assert chosen.options.nodes == 7
    assert methods.choose("fixed_blocks:block_length=none", KINDS["schedule"]).options.block_length is None
    assert methods.choose("credit:parameter_free=true", KINDS["transform"]).options.parameter_free is True
    for text, message in (
        ("stand:nodes=7.5", "nodes must be a whole number"),
        ("stand:nodes=x", "nodes must be a whole number"),
        ("stand:nodes={[]: 1}", "nodes must be a whole number"),
        ("stand:node=7", "did you mean 'nodes'"),
        ("auto:forget=nan", "forget must be a number"),
    ):
        with pytest.raises(UnspoolError, match=message):
            methods.choose(text, DRAFTER)


@dataclass(frozen=True)
class Foreign:
    """Options of no method."""


@pytest.mark.parametrize("kind", [DRAFTER, ACCEPTANCE, SHAPER, UNMASK])
@pytest.mark.parametrize("wrong", [5, None, b"auto", ["auto"], Foreign()])
def test_what_names_no_method_is_refused(kind: Any, wrong: Any) -> None:
    with pytest.raises(UnspoolError, match="is neither the name of a"):
        methods.choose(wrong, kind)


def test_a_mapping_stays_one_in_a_canonical_spec() -> None:
    chosen = methods.choose("grammar(json_schema={'enum': ['a']})", CONSTRAINT)
    assert chosen.spec == "grammar(json_schema={'enum': ['a']})"
    assert methods.choose(chosen.spec, CONSTRAINT).options.json_schema == chosen.options.json_schema


def test_messages_have_the_article_of_the_noun() -> None:
    with pytest.raises(UnspoolError, match="plain is not an acceptance rule but of kind drafter"):
        methods.choose("plain", ACCEPTANCE)
    with pytest.raises(UnspoolError, match="5 is neither the name of an unmask policy"):
        methods.choose(5, UNMASK)


def test_options_of_a_monitor_are_typed_as_all_are() -> None:
    assert MonitorOptions(project=".").project == Path()  # type: ignore[arg-type]
    with pytest.raises(UnspoolError, match="project must be a path or None, not 5"):
        MonitorOptions(project=5)  # type: ignore[arg-type]
