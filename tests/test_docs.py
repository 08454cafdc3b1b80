"""The documentation is true: its examples run, its generated pages follow the code, its commands have their options."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from typer.testing import CliRunner

from tests.conformance.faults import CACHE_FAULTS, StaleAfterRewind
from tests.installed import on_path, write, write_examples
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.bench.result import Bench, Run
from unspool.bench.tradeoff import Point, Tradeoff
from unspool.cli import app
from unspool.conformance.session import check_backend
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import LanguageModel, Scores
from unspool.engine.method import DRAFTER
from unspool.engine.option import meanings, range_of
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods.shaping import _built_in as shaping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.name: path.read_text("utf-8") for path in DOCS.glob("*.md")}
TABLE = ToyModel.random(seed=11, vocab_size=6, order=2)
PROMPT = [0, 1, 2, 0, 1]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


generated = load(DOCS / "hooks" / "generated.py")
recompute = load(DOCS / "examples" / "unspool_recompute.py")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def run(model: LanguageModel, drafter: Any, options: GenerationOptions) -> tuple[list[int], list[StepEvent]]:
    rule = methods.acceptance_rule(None, options.greedy, methods.Resources(model))
    request = Request(PROMPT, drafter, rule, options, shaping.build(options))
    steps = [event for event in decode(model, [request]) if isinstance(event, StepEvent)]
    return [token for step in steps for token in step.emitted], steps


# The example of add-a-method.md, installed the way the page says.


@pytest.fixture
def bigram(tmp_path: Path) -> Iterator[None]:
    (package,) = (tomllib.loads(block) for block in blocks(PAGES["add-a-method.md"], "toml"))
    project = package["project"]
    files = [DOCS / "examples" / file for file in package["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]]
    write(tmp_path, project["name"].replace("-", "_"), project["entry-points"]["unspool.methods"], files)
    with on_path(tmp_path):
        yield


METHODS = ("bigram", "recent", "margin", "first_tokens", "at_most", "norm")


@pytest.mark.parametrize("name", METHODS)
def test_the_page_shows_whole_files_and_their_tests_pass(name: str, tmp_path: Path) -> None:
    page = PAGES["add-a-method.md"]
    assert f"--8<--\nexamples/unspool_{name}.py\n--8<--" in page
    assert len((DOCS / "examples" / f"unspool_{name}.py").read_text("utf-8").splitlines()) < 65
    (shown,) = re.findall(rf'^```python title="test_{name}.py"\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
    write_examples(tmp_path, name)
    with on_path(tmp_path):
        space: dict[str, Any] = {}
        exec(shown, space)
        tests = [value for key, value in space.items() if key.startswith("test_")]
        assert len(tests) == 2
        for test in tests:
            test()


@pytest.mark.parametrize("setting", [{}, {"temperature": 0.8, "seed": 4}, {"repetition_penalty": 1.3}])
def test_the_example_method_gives_plain_decoding(bigram: None, setting: dict[str, Any]) -> None:
    options = GenerationOptions(max_new_tokens=50, **setting)
    resources = methods.Resources(TABLE)
    expected, passes = run(TABLE, methods.build("plain", DRAFTER, resources), options)
    drafter = methods.build("bigram", DRAFTER, resources, {"num_assistant_tokens": 3})
    text, steps = run(TABLE, drafter, options)
    assert text == expected
    assert max(len(step.tokens) for step in steps) == 4
    assert {source for step in steps for source in step.sources} == {"root", "bigram"}
    assert len(steps) < len(passes), "no draft of the example was accepted"


def test_the_example_method_learns_the_emitted_tokens(bigram: None) -> None:
    drafter: Any = methods.build("bigram", DRAFTER, methods.Resources(TABLE))
    text, _ = run(TABLE, drafter, GenerationOptions(max_new_tokens=30))
    whole = [*PROMPT, *text]
    assert set(drafter.after.items()) <= set(pairwise(whole))
    assert set(drafter.after.items()) - set(pairwise(PROMPT)), "nothing was learned after the prompt"


def test_the_example_method_refuses_a_wrong_option(bigram: None) -> None:
    with pytest.raises(UnspoolError, match="at least 1"):
        methods.build("bigram", DRAFTER, methods.Resources(TABLE), {"num_assistant_tokens": 0})


def test_an_installed_method_is_listed_and_has_a_page(bigram: None) -> None:
    listed = CliRunner().invoke(app, ["methods", "--json"]).stdout
    assert '"name": "bigram"' in listed
    page = generated.pages()["methods/bigram.md"]
    assert "| `num_assistant_tokens` | `int` | `4` | at least 1 | most tokens of a draft, at least 1. |" in page
    assert "draft the token that last followed the newest one" in page
    assert "[`bigram`](bigram.md)" in generated.pages()["methods/index.md"]


# The example and the check of add-a-backend.md.


def recomputed() -> Any:
    return recompute.RecomputeModel(lambda text: np.log(TABLE.probabilities(text)), TABLE.vocab_size, TABLE.max_length)


def test_the_example_backend_and_the_toy_model_pass_the_check() -> None:
    check_backend(recomputed(), PROMPT)
    check_backend(TABLE, PROMPT, tolerance=0.0)


class Siblings(recompute.RecomputeSession):  # type: ignore[misc, name-defined]
    def score(self, tree: Any, rows: Sequence[int] | None = None) -> Scores:
        scores: Scores = super().score(tree, rows)
        for row, node in enumerate(scores.rows):
            scores.logits[row] = self.model.next_logits([*self.tokens, *tree.tokens[: node + 1]])
        return scores


class StoresOnScore(recompute.RecomputeSession):  # type: ignore[misc, name-defined]
    def score(self, tree: Any, rows: Sequence[int] | None = None) -> Scores:
        scores: Scores = super().score(tree, rows)
        if len(tree) > 4:
            self.tokens = [*self.tokens, tree.tokens[1]]
        return scores


class CropsByLength(recompute.RecomputeSession):  # type: ignore[misc, name-defined]
    def commit(self, path: Sequence[int]) -> None:
        super().commit(range(len(path)))


class SharedFork(recompute.RecomputeSession):  # type: ignore[misc, name-defined]
    def fork(self) -> Any:
        twin = type(self)(self.model, [])
        twin.tokens = self.tokens
        return twin


class NoRewind(recompute.RecomputeSession):  # type: ignore[misc, name-defined]
    def rewind(self, length: int) -> None:
        pass


@pytest.mark.parametrize("session", [Siblings, StoresOnScore, CropsByLength, SharedFork, NoRewind])
def test_the_check_catches_wrong_sessions(session: Any) -> None:
    model = recomputed()
    model.open = lambda: session(model, [])
    with pytest.raises(AssertionError):
        check_backend(model, PROMPT)


@pytest.mark.parametrize("name", [*CACHE_FAULTS, "stale after rewind"])
def test_the_check_catches_wrong_caches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = CACHE_FAULTS.get(name, StaleAfterRewind)
    # Every distance counts, so that a wrong entry shows wherever it stands.
    model = ToyModel.random(seed=3, vocab_size=5, order=3, floor=0.02)
    monkeypatch.setattr(model, "open", lambda taps=None: session(model))
    with pytest.raises(AssertionError):
        check_backend(model, PROMPT)


def test_the_check_catches_rows_that_share_memory() -> None:
    model = recomputed()

    def score_many(sessions: Sequence[Any], trees: Sequence[Any], rows: Any = None) -> list[Scores]:
        scores = [session.score(tree) for session, tree in zip(sessions, trees, strict=True)]
        return [Scores(scores[-1].logits[:1].repeat(len(s.rows), axis=0), s.rows, s.ms) for s in scores]

    model.score_many = score_many
    with pytest.raises(AssertionError, match="score_many"):
        check_backend(model, PROMPT)


def test_the_example_backend_decodes_like_its_table(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text('{"seed": 11, "vocab_size": 6, "order": 2}')
    model = recompute.RecomputeBackend().load(tmp_path)
    options = GenerationOptions(max_new_tokens=40, temperature=0.9, seed=2)
    expected, _ = run(TABLE, methods.build("plain", DRAFTER, methods.Resources(TABLE)), options)
    for name in ("plain", "suffix", "token_recycling"):
        text, _ = run(model, methods.build(name, DRAFTER, methods.Resources(model)), options)
        assert text == expected


def test_code_of_the_backend_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check as shown, then ``unspool.Model`` around the model that was checked."""
    page = PAGES["add-a-backend.md"]
    checked, used = (block for block in blocks(page, "python") if "--8<--" not in block)
    assert "--8<--\nexamples/unspool_recompute.py\n--8<--" in page
    space: dict[str, Any] = {}
    exec(checked, space)
    words = Tokenizer(WordLevel({"Why": 0, "is": 1, "the": 2, "sky": 3, "blue": 4, "?": 5}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    (tmp_path / "my-model").mkdir()
    words.save(str(tmp_path / "my-model" / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    space["language_model"] = space["model"]
    exec(used, space)
    result = space["model"].generate("Why is the sky blue?", method="suffix", max_new_tokens=8, eos_token_id=[])
    assert result.token_ids == space["model"].generate([0, 1, 2, 3, 4, 5], method="plain", max_new_tokens=8).token_ids


# Generated pages.


def test_every_method_has_a_page_with_its_options() -> None:
    pages = generated.pages()
    for name, method in methods.methods().items():
        page = pages[f"methods/{name}.md"]
        assert method.summary in page
        assert method.paper in page
        assert method.guarantee in page
        assert f"({name}.md)" in pages["methods/index.md"]
        meaning = meanings(method.options)
        for field in fields(method.options):
            allowed = range_of(field) or ""
            row = f"| `{field.name}` | `{field.type}` | `{field.default!r}` | {allowed} | {meaning[field.name]} |"
            assert row in page


def test_what_can_be_trained_says_how() -> None:
    pages = generated.pages()
    for row in methods.of_kind():
        page = pages[f"methods/{row.name}.md"]
        if not row.trainer:
            assert "## Training" not in page
            continue
        trainer = methods.trainer(row)
        command, *_ = re.findall(rf"unspool train ({row.name}\S*) -", page)
        assert methods.training_options(row.name, trainer, command), "the command that is shown can be read"
        table = page.partition("## Training")[2].partition("## How it works")[0]
        shown = re.findall(r"^\| `(\w+)` \| `", table, re.MULTILINE)
        assert shown == [field.name for field in fields(trainer.options)], row.name
        assert f"methods/{row.name}.md#training" in generated.on_page_markdown("<!-- trainers -->")
    assert "`task_set`" in generated.on_page_markdown("<!-- trainer: diffusion -->")


def test_pages_hold_the_docstring_of_the_method_itself() -> None:
    pages = generated.pages()
    assert "Token Recycling keeps the" in pages["methods/token_recycling.md"]
    assert "The rule at temperature 0" in pages["methods/greedy.md"]
    assert "the most probable span of a passage, exactly" in pages["methods/extract.md"]
    assert "Rejection sampling over a token tree" in pages["methods/lossless.md"]
    assert "Choices where the paper or its code leaves one:\n\n- A token" in pages["methods/token_recycling.md"]


class One:
    """Summary.

    Attributes:
        one, two: both, which goes on
            here: with a colon.
        three: alone.

    More text: not an attribute.
    """


class Two(One):
    """Another.

    Attributes:
        three: another text.
    """


def test_meanings_of_fields_are_those_of_the_class_and_its_bases() -> None:
    assert meanings(One) == {
        "one": "both, which goes on here: with a colon.",
        "two": "both, which goes on here: with a colon.",
        "three": "alone.",
    }
    assert meanings(Two) == {**meanings(One), "three": "another text."}


def test_the_navigation_gets_the_methods() -> None:
    class Config:
        nav = [{"Start": "index.md"}, {"Methods": "methods/index.md"}]  # noqa: RUF012

    generated.on_config(Config())
    assert Config.nav[1]["Methods"] == list(generated.pages())


def test_a_table_of_speeds() -> None:
    speeds = {"plain": (2.0, 1.0), "auto": (4.0, 4.0), "llama_cpp": (1.0, 1.0)}
    runs = [
        Run(name, category, category, 0, [1] * 9, "", 0.1, 8 / speed, 8, None if name == "llama_cpp" else 3)
        for name, pair in speeds.items()
        for category, speed in zip(("edit", "qa"), pair, strict=True)
    ]
    about = {"date": "2026-01-02T03:04", "machine": {"cpu": "Z80", "physical_cores": 1}}
    about["versions"] = {"unspool": "1", "openvino": "2"}
    result = Bench(about, "unspool bench", "tiny", "s", {name: {} for name in speeds}, {}, {}, None, {}, {}, runs)
    lines = generated.results.bench_table(result).splitlines()
    assert lines[0] == "| | tokens a pass | edit | qa | geometric mean |"
    assert lines[2:4] == ["| `auto` | 3.00 | **2.00** | **4.00** | 2.83 |", "| `llama_cpp` | – | 0.50 | 1.00 | 0.71 |"]
    assert lines[-2] == "unspool bench" and "plain: 1.5 tokens/s" in lines[5] and "Z80" in lines[5]


def test_a_table_of_passes() -> None:
    def point(line: str, k: int, dependent: bool, right: int, passes: int) -> Point:
        answers = [i < right for i in range(100)]
        method = "top_k" if k == 1 else f"top_k:tokens_per_step={k}"
        return Point(line, method, "t", dependent, answers, [passes] * 100, {})

    points = [point("top_k", 1, d, 99, 24) for d in (False, True)]
    points += [point("top_k", 4, False, 98, 6), point("top_k", 8, False, 97, 3), point("top_k", 4, True, 50, 6)]
    about = {"date": "2026-01-02T03:04", "machine": {"cpu": "Z80"}}
    lines = generated.results.tradeoff_table(Tradeoff(about, "unspool tradeoff", "tiny", 24, points)).splitlines()
    rows = [line for line in lines if line.startswith("| top_k")]
    assert rows == [
        "| top_k | tokens_per_step=4 | 98.0\u202f% | 6.00 | 4.0 |",
        "| top_k | tokens_per_step=1 | 99.0\u202f% | 24.00 | 1.0 |",
    ]
    assert lines[-2] == "unspool tradeoff" and "100 held-out questions" in lines[-5]


# Commands.

FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


TABLES = {
    "models": ("models", "models remove"),
    "datastore": ("datastore build",),
}
"""Commands of which one page has several tables, one for each of their own commands."""


def flags(command: str) -> set[str]:
    tables = TABLES.get(command, (command,))
    return {flag for t in tables for flag in FLAG.findall(generated.on_page_markdown(f"<!-- options: {t} -->"))}


COMMANDS = (
    "generate",
    "sample",
    "search",
    "extract",
    "edit",
    "models",
    "methods",
    "calibrate",
    "check",
    "prove",
    "bench",
    "tradeoff",
    "train",
    "reproduce",
    "report",
    "view",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_of_options_equal_the_help(command: str) -> None:
    text = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [command, "--help"]).output
    names = re.findall(r"^\W*(--[a-z-]+)", text, re.MULTILINE)
    assert set(names) - {"--help"} <= flags(command)
    assert f"<!-- options: {command} -->" in PAGES["command-line.md"]
    rows = [line for line in generated.on_page_markdown(f"<!-- options: {command} -->").splitlines() if "`--" in line]
    assert len(rows) == len(set(names) - {"--help"})


@pytest.mark.parametrize(("group", "command"), [("datastore", "build")])
def test_tables_of_options_of_subcommands_equal_the_help(group: str, command: str) -> None:
    text = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [group, command, "--help"]).output
    names = re.findall(r"^│\W*(--[a-z-]+)", text, re.MULTILINE)
    assert set(names) - {"--help"} and set(names) - {"--help"} <= flags(group)
    assert f"<!-- options: {group} {command} -->" in PAGES["command-line.md"]


def test_commands_in_the_pages_have_their_options() -> None:
    lines = [
        line
        for page in (*PAGES.values(), *generated.pages().values())
        for b in blocks(page, "sh")
        for line in b.split("\n")
    ]
    seen = set()
    for line in lines:
        for command, rest in re.findall(r"unspool (\w+)(.*)", line):
            seen.add(command)
            assert set(FLAG.findall(rest.split('"')[0] + " ".join(rest.split('"')[2::2]))) <= flags(command), line
    groups = {"datastore"}  # the tables are those of their one command with options of its own
    assert seen == {*COMMANDS, *groups}


def test_python_in_the_pages_compiles() -> None:
    for name, page in (PAGES | generated.pages()).items():
        for block in blocks(page, "python"):
            if "--8<--" not in block:  # an included file, which other tests run
                compile(block, name, "exec")
