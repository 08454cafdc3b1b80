"""The registry: names without imports, installed methods of every kind, broken packages, specs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import unspool
from tests.bench.fakes import Silent
from tests.bench.fakes import plan as bench_plan
from tests.installed import on_path, write, write_examples
from unspool import UnspoolError, methods
from unspool.backends.toy import ToyModel
from unspool.bench import tradeoff
from unspool.bench.contestants import Contestant, contestants
from unspool.bench.engines import Unspool
from unspool.bench.runner import measure as bench_measure
from unspool.cli import app
from unspool.conformance import channel, probe
from unspool.conformance.canvas_model import Whatever
from unspool.conformance.small_model import load
from unspool.decoding.canvas import DiffusionModel
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
    Kind,
)
from unspool.errors import UnknownNameError, UnsupportedError
from unspool.methods.constraints.monitor import MonitorOptions
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rsd import RSDOptions
from unspool.methods.drafters.token_recycling import TokenRecyclingOptions
from unspool.methods.spec import canonical, parse, split
from unspool.proof.prove import prove
from unspool.recipes.tiny_diffusion.short_tasks import SHORT

sys.path.append(str(Path(__file__).parents[2] / "docs" / "hooks"))
import generated

sys.path.pop()

KINDS_OF = {
    "bigram": DRAFTER,
    "at_most": ACCEPTANCE,
    "recent": SHAPER,
    "first_tokens": SEARCH,
    "margin": UNMASK,
    "without": CONSTRAINT,
    "norm": PROBE,
}
"""The methods of the documentation, one file each, of the kinds that others add."""

OPTION = {"bigram": "num_assistant_tokens", "at_most": "tokens", "recent": "window", "first_tokens": "width"}


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[Path]:
    """The documentation's methods, installed."""
    write_examples(tmp_path, *KINDS_OF)
    with on_path(tmp_path):
        yield tmp_path


def test_an_installed_method_of_every_kind_is_listed_and_has_a_page(examples: Path) -> None:
    assert methods.unavailable() == {}
    assert {name: methods.named(name).kind for name in KINDS_OF} == KINDS_OF
    pages = generated.pages()
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    for name in KINDS_OF:
        assert name in [row["name"] for row in listed]
        assert f"[`{name}`]({name}.md)" in pages["methods/index.md"]
        page = pages[f"methods/{name}.md"]
        assert "An example of a third-party" in page
        assert name not in OPTION or f"| `{OPTION[name]}` | `int` |" in page


def test_their_options_are_specs_as_all_are(examples: Path) -> None:
    model, request = load(), {"chat": False, "max_new_tokens": 9}
    plain = model.generate("ab", method="plain", **request).token_ids
    found = model.generate("ab", method="bigram:num_assistant_tokens=2", acceptance="at_most:tokens=1", **request)
    assert (found.token_ids, found.method) == (plain, "bigram:num_assistant_tokens=2")
    assert model.generate("ab", method="plain", shapers=["recent:penalty=9"], **request).token_ids != plain
    assert "x" not in model.generate("x=", constraint="without:text=x", **request).text
    assert len(model.search("ab", method="first_tokens:width=2", max_new_tokens=3).candidates) == 2
    for spec, kind in (("first_tokens:width=65", SEARCH), ("at_most:tokens=0", ACCEPTANCE)):
        with pytest.raises(UnspoolError, match="must"):
            methods.choose(spec, kind)


@pytest.mark.parametrize("name", KINDS_OF)
def test_they_pass_their_checks(examples: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["check", name])
    assert result.exit_code == 0, result.stdout
    assert result.stdout.startswith(f"{name} ({KINDS_OF[name]}): ")


def test_they_are_proven(examples: Path) -> None:
    """All but parts of the denoise loop and probes, for which there is no proof; each by the test of its guarantee."""
    names = [name for name, kind in KINDS_OF.items() if not kind.on_canvas and kind is not PROBE]
    proof = prove(load(), names, ["ab", "x=1,", "in.count"], max_new_tokens=16)
    checked = {row.method: row.check for row in proof.rows if row.method in names}
    assert checked == {
        "bigram": "identity",
        "at_most": "identity",
        "recent": "distance",
        "first_tokens": "distance",
        "without": "validity",
    }
    assert proof.faults == 0
    (valid, _) = [row for row in proof.rows if row.method == "without"]
    assert valid.details == {"valid": 2, "cut": 0, "judge": "Python's in"}


class InProcess:
    """A contestant without a process, on the small model."""

    memory = 0

    def __init__(self, contestant: Contestant) -> None:
        self._engine = Unspool.__new__(Unspool)
        self._engine.model, self._engine.method = load(), contestant.method or ""
        self.settings: dict[str, str] = {}
        self.decode, self.reset = self._engine.decode, self._engine.reset

    def close(self) -> None: ...


def test_a_drafter_is_benchmarked_with_two_settings(examples: Path) -> None:
    specs = ["bigram", "bigram:num_assistant_tokens=2"]
    plan = bench_plan(contestants(specs, [], "int8"), prompts=2, ids={"": [1], "0": [2, 3], "1": [4]}, max_new_tokens=9)
    measured = bench_measure(plan, InProcess, Silent())
    texts = {(run.contestant, run.prompt): run.token_ids for run in measured.runs}
    assert {name for name, _ in texts} == {"plain", *specs}
    assert all(texts[name, prompt] == texts["plain", prompt] for name, prompt in texts)


class NoText:
    """A tokenizer of a model that is asked in ids."""

    has_chat_template = False

    def decode(self, ids: Any) -> str:
        return ""


def test_an_unmask_policy_is_swept_and_measured(examples: Path) -> None:
    size = len(SHORT.vocabulary)
    tokenizer: Any = NoText()
    model = DiffusionModel(Whatever(size + 1), tokenizer, "whatever", canvas_length=SHORT.canvas_length)
    settings = [setting for setting in tradeoff.swept() if setting.line == "margin"]
    assert [setting.method for setting in settings] == ["margin:margin=0.2", "margin", "margin:margin=0.8"]
    assert tradeoff.left_out(settings, model) == {}
    points = [point for point in tradeoff.measure(model, SHORT, settings, 2) if point.line == "margin"]
    passes = [sum(sum(p.passes) for p in points if p.method == setting.method) for setting in settings]
    assert passes == sorted(passes) and passes[0] < passes[-1], "a wider margin takes more passes"


def test_all_of_it_works_without_a_checkout_pytest_and_torch(tmp_path: Path) -> None:
    """A process of its own in an empty directory, whose site directory holds the six files."""
    site, here = tmp_path / "site", tmp_path / "here"
    write_examples(site, *KINDS_OF)
    here.mkdir()
    code = (
        "import sys\n"
        "from unspool.cli import main\n"
        f"sys.argv = ['unspool', 'check', {', '.join(map(repr, KINDS_OF))}]\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'pytest', 'torch', 'openvino', 'transformers', 'tests'} & set(sys.modules)))\n"
    )
    source = Path(unspool.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=here,
        env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and len(lines) == len(KINDS_OF) + 1, result.stdout + result.stderr
    assert lines[-1] == "[]", "loaded"


def test_a_package_that_is_broken_is_named_when_it_is_asked_for_and_not_before(examples: Path) -> None:
    write(examples, "broken", {"gone": "no_such_module:METHOD", "wrong": "unspool_bigram:SUMMARY"}, [])
    methods.forget()
    result = CliRunner().invoke(app, ["methods"])
    assert result.exit_code == 0 and "bigram" in result.stdout and "not available: gone" in result.stderr
    assert methods.find("bigram", DRAFTER).name == "bigram"
    for name, message in (("gone", "cannot be loaded: ModuleNotFoundError"), ("wrong", "is not a Method")):
        with pytest.raises(UnspoolError, match=message):
            methods.find(name, DRAFTER)
        assert message in methods.unavailable()[name]


def test_a_name_that_is_in_use_stays_who_had_it(examples: Path) -> None:
    write(examples, "again", {"suffix": "unspool_bigram:METHOD"}, [])
    methods.forget()
    assert methods.find("suffix", DRAFTER).paper.startswith("SAM Decoding")
    assert any("in use" in why for why in methods.unavailable().values())


def test_every_kind_has_an_example_and_a_heading() -> None:
    assert set(generated.EXAMPLES) == set(KINDS.values())
    assert {row.kind for row in methods.of_kind()} == set(KINDS.values()) - {PROBE, CHANNEL, COMPRESSOR}, (
        "contracts only"
    )


@pytest.fixture
def open_kinds(tmp_path: Path) -> Iterator[dict[str, Kind[Any]]]:
    """A method of each kind that no built-in method fills, installed."""
    rows: dict[str, Kind[Any]] = {"mean": PROBE, "repeat": CHANNEL, "half": COMPRESSOR}
    write(tmp_path, "contracts", {name: f"tests.conformance.contracts:{name}" for name in rows}, [])
    with on_path(tmp_path):
        yield rows


def test_kinds_that_no_built_in_method_fills_are_open(open_kinds: dict[str, Kind[Any]], tmp_path: Path) -> None:
    """One file with a row: it is listed, has a page, is built and is run by the checks of its kind."""
    rows = open_kinds
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
    with pytest.raises(UnknownNameError, match="unknown probe 'norm'; known: none"):
        methods.find("norm", PROBE)


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
