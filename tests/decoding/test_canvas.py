"""Masked-diffusion models by name: results, traces, grammars, the command line, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import unspool
from unspool.cli import app
from unspool.cli.generate_canvas import drawn, fill
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.model import Model
from unspool.decoding.request import CanvasArguments
from unspool.engine.trace import CanvasEvent
from unspool.errors import UnspoolError
from unspool.models import diffusion as diffusion_files
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.tasks import END, MASK, held_out
from unspool.recipes.tiny_diffusion.train import TASK_SETS, CanvasTrainingOptions, train
from unspool.trace import file as trace_file
from unspool.trace.schema import schema


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diffusion") / "untrained"
    train(
        path,
        CanvasTrainingOptions(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_steps=1, batch_size=2
        ),
    )
    return path


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSPOOL_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module")
def on_openvino(own_store: None, directory: Path) -> DiffusionModel:
    return unspool.load(str(directory), backend="openvino", threads=1)


@pytest.fixture(scope="module")
def model(directory: Path) -> DiffusionModel:
    return unspool.load(str(directory))


def test_a_result_tells_the_text_and_what_it_took(model: DiffusionModel) -> None:
    result = model.generate("<sort> d a c", method="top_k:tokens_per_step=5")
    assert result.prompt_token_ids == SHORT.prompt_ids(["<sort>", "d", "a", "c"])
    figures = result.statistics
    assert figures.commits == (5, 5, 5, 5, 4)
    assert figures.passes == 5 and figures.fed == 5 * SHORT.length
    assert figures.tokens == len(result.token_ids) and figures.tokens_per_pass == len(result.token_ids) / 5
    shown = [SHORT.vocabulary[token] for token in result.token_ids]
    assert result.text == "".join(symbol for symbol in shown if symbol not in ("<pad>", MASK, END))
    assert (result.finish_reason == "stop") == (shown[-1] == END)


def test_a_batch_gives_what_its_prompts_give_alone(model: DiffusionModel) -> None:
    prompts = ["<sort> d a c", "<copy> x y", "<addition> 0 1 2 + 0 0 3"]
    together = model.generate(prompts, method="credit+threshold+adablock", temperature=0.5, seed=4)
    alone = [model.generate(p, method="credit+threshold+adablock", temperature=0.5, seed=4) for p in prompts]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]


def test_a_grammar_holds_where_the_model_knows_nothing(model: DiffusionModel) -> None:
    result = model.generate("<sort> d a c", grammar='start: LETTER ("," LETTER)*\nLETTER: /[a-z]/', max_new_tokens=12)
    letters = result.text.split(",")
    assert letters and all(len(letter) == 1 and letter.isalpha() for letter in letters)
    assert result.finish_reason == "stop" or len(result.token_ids) == 12


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("<sort> d ?", {}, "cannot encode"),
        ("<sort> " + "a " * 20, {}, "has 21 tokens, and .* was trained on 10"),
        ("<sort> a", {"method": "suffix"}, "unknown method for canvases"),
        ("<sort> a", {"max_new_tokens": 0}, "max_new_tokens must lie in 1 to 2"),
        ("<sort> a", {"max_new_tokens": 25}, "exceed the model's 34 positions"),
        ("<sort> a", {"cache": "tripple"}, "cache must be"),
        ("<sort> a", {"method": "threshold+fixed_blocks:block_length=7"}, "does not divide"),
        ("<sort> a", {"grammar": 'start: "a" start'}, "grammar"),
        ("<sort> a", {"canvas": ["a", 3], "max_new_tokens": 4}, "leave max_new_tokens out"),
        ("<sort> a", {"canvas": ["a", 0]}, "at least 1, not of 0"),
        ("<sort> a", {"canvas": ["a,b"]}, "no hole"),
        ("<sort> a", {"canvas": ["a!", 3]}, "cannot encode 'a!'"),
        ("<sort> a", {"canvas": [3, "+", 2], "grammar": "start: LETTER\nLETTER: /[a-z]/"}, "contradict the grammar"),
    ],
)
def test_mistakes_are_told_before_any_pass(
    model: DiffusionModel, prompt: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnspoolError, match=message):
        model.generate(prompt, on_event=lambda event: pytest.fail("a pass was made"), **options)


def test_a_canvas_with_several_holes_keeps_what_stands_on_it(model: DiffusionModel) -> None:
    """Under a grammar that asks for more than the untrained model knows, too."""
    canvas = ["def f1(", 3, "):\n    return ", 3, "*b"]
    grammar = r"""
        start: "def " NAME "(" NAME "," NAME "):\n    return " sum
        sum: NAME (("+" | "-" | "*") NAME)*
        NAME: /[a-z][a-z0-9]*/
    """
    free = model.generate("<python> f1 a b *", canvas=canvas)
    assert re.match(r"def f1\(", free.text)
    bound = model.generate("<python> f1 a b *", canvas=canvas, grammar=grammar)
    assert re.fullmatch(r"def f1\([a-z][a-z0-9]*,[a-z][a-z0-9]*\):\n    return [a-z][a-z0-9+*-]*\*b", bound.text)
    assert len(bound.token_ids) == 3 + 3 + 5 + 3 + 2
    compile(bound.text, "bound", "exec")
    with pytest.raises(SyntaxError):
        compile(free.text, "free", "exec")


def test_no_text_ends_before_what_is_given() -> None:
    """The model would end it in the hole, and what stands behind it would be lost."""
    shipped = unspool.load("tiny-diffusion-long")
    canvas = ["def f0(d,u):\n    s=", 3, "\n    return s", 20]
    result = shipped.generate("<program> f0 d u s +", canvas=canvas)
    assert result.text.startswith("def f0(d,u):\n    s=") and "\n    return s" in result.text
    assert result.finish_reason == "stop"


def test_one_load_gives_what_the_name_is(directory: Path, model: DiffusionModel) -> None:
    assert isinstance(model, DiffusionModel)
    with pytest.raises(UnspoolError, match="unknown model 'nothing'"):
        unspool.load("nothing")
    with pytest.raises(UnspoolError, match="no such diffusion model: nothing"):
        unspool.load("nothing", expect=DiffusionModel)
    with pytest.raises(UnspoolError, match="is a diffusion model, but a language model is needed"):
        unspool.load(str(directory), expect=Model)
    with pytest.raises(UnspoolError, match="is a diffusion model, which does not take a draft model"):
        unspool.load(str(directory), assistant_model="smollm2-135m")


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_both_backends_fill_a_canvas_alike(model: DiffusionModel, on_openvino: DiffusionModel, cache: str) -> None:
    options: dict[str, Any] = {"method": "top_k:tokens_per_step=3+fixed_blocks:block_length=8", "cache": cache}
    prompts = ["<sort> d a c", "<copy> x y"]
    found, expected = (decoder.generate(prompts, **options) for decoder in (on_openvino, model))
    assert [result.token_ids for result in found] == [result.token_ids for result in expected]
    assert [result.statistics.fed for result in found] == [result.statistics.fed for result in expected]


def test_loading_says_what_takes_long_and_what_does_not_fit(own_store: None, directory: Path) -> None:
    heard: list[str] = []
    unspool.load(str(directory), report=heard.append)
    assert heard == ["loading the weights into torch"]
    with pytest.raises(UnspoolError, match="unknown option of canvases on transformers 'threads'; known: device"):
        unspool.load(str(directory), threads=2)
    with pytest.raises(UnspoolError, match="unknown backend for canvases 'llama_cpp'; known: openvino, transformers"):
        unspool.load(str(directory), backend="llama_cpp")


def filled(directory: Path, capsys: pytest.CaptureFixture[str], *, device: str | None = None, **loading: Any) -> Any:
    fill(str(directory), "<sort> d a c", CanvasArguments(), True, None, device=device, **loading)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("named", "backend", "weights"),
    [(None, "transformers", "float32"), ("transformers", "transformers", "float32"), ("openvino", "openvino", "fp32")],
)
def test_the_command_runs_on_the_backend_that_was_named(
    own_store: None,
    directory: Path,
    model: DiffusionModel,
    capsys: pytest.CaptureFixture[str],
    named: str | None,
    backend: str,
    weights: str,
) -> None:
    data = filled(directory, capsys, backend=named)
    assert (data["settings"]["backend"], data["settings"]["weights"]) == (backend, weights)
    assert data["token_ids"] == model.generate("<sort> d a c").token_ids


def test_the_command_passes_options_of_the_backend_on(
    own_store: None, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert filled(directory, capsys, backend="openvino", weights="fp32", threads=1)["settings"]["threads"] == "1"
    with pytest.raises(UnspoolError, match="weight format of canvases 'int4'"):
        filled(directory, capsys, backend="openvino", weights="int4")
    with pytest.raises(UnspoolError, match="canvases on openvino 'device'"):
        filled(directory, capsys, backend="openvino", device="cpu")
    with pytest.raises(UnspoolError, match="canvases on transformers 'threads'"):
        filled(directory, capsys, threads=1)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["generate", *arguments])


def test_the_command_prints_text_and_figures(directory: Path, model: DiffusionModel) -> None:
    result = run("-m", str(directory), "--method", "top_k", "<sort> d a c")
    assert result.exit_code == 0, result.output
    assert result.stdout == model.generate("<sort> d a c", method="top_k").text + "\n"
    assert "24 passes · top_k" in result.stderr


def test_json_is_for_scripts(directory: Path) -> None:
    result = run("-m", str(directory), "--json", "--max-new-tokens", "8", "<sort> d a c")
    data = json.loads(result.stdout)
    assert data["method"] == "threshold" and sum(data["statistics"]["commits"]) == 8


def test_a_trace_is_written_and_valid(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert run("-m", str(directory), "--trace", str(path), "<sort> d a c").exit_code == 0
    validator = Draft202012Validator(schema())
    for line in path.read_text().splitlines():
        validator.validate(json.loads(line))
    trace = trace_file.read(path)
    assert not trace.truncated
    last = [event for event in trace.events if event["kind"] == "canvas"][-1]
    assert None not in last["slots"] and set(last["texts"]) == {str(token) for token in last["slots"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "5"], "not support --top-k"),
        (["--acceptance", "greedy"], "not support --acceptance"),
        (["--assistant-model", "smollm2-135m"], "leave out --assistant-model"),
        (["--method", "sufix"], "unknown method for canvases 'sufix'"),
        (["--cache", "pefix"], "cache must be none, prefix or dual, not 'pefix'"),
        (["--guidance-scale", "-1"], "guidance_scale must be at least 0"),
        (["--truncate-at-eos", "2"], "truncate_at_eos must lie in 0 to 1"),
        (["--canvas", "a,b"], "--canvas is a JSON list"),
        (["--canvas", '["a", 1.5]'], "at least 1, not of 1.5"),
    ],
)
def test_what_a_canvas_does_not_have_is_refused(directory: Path, arguments: list[str], message: str) -> None:
    result = run("-m", str(directory), *arguments, "<sort> a")
    assert result.exit_code != 0
    assert message in str(result.exception)


def test_the_command_passes_options_of_canvases_on(directory: Path, model: DiffusionModel) -> None:
    asked = {"cache": "dual", "guidance_scale": 0.5, "truncate_at_eos": 0.9}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    result = run("-m", str(directory), "--json", *flags, "<sort> d a c")
    expected = model.generate("<sort> d a c", **asked)
    data = json.loads(result.stdout)
    assert data["token_ids"] == expected.token_ids
    plain = model.generate("<sort> d a c")
    assert data["statistics"]["passes"] == expected.statistics.passes != plain.statistics.passes


def test_the_command_fills_holes(directory: Path, model: DiffusionModel) -> None:
    result = run("-m", str(directory), "--json", "--canvas", '["a,", 3, "b"]', "<sort> a c b")
    assert json.loads(result.stdout)["token_ids"] == model.generate("<sort> a c b", canvas=["a,", 3, "b"]).token_ids


def test_options_of_canvases_are_refused_elsewhere() -> None:
    result = run("--truncate-at-eos", "0.5", "Hello")
    assert result.exit_code != 0
    assert "--truncate-at-eos is for diffusion models" in str(result.exception)


def test_the_drawn_canvas_shows_masks_news_and_no_filling() -> None:
    event = CanvasEvent(0, 1, 0, (7, None, 8, 2, 2), (2,), (0.9,), 5, 1.0)
    text = drawn(event, {7: "a", 8: "b", 2: ""}.__getitem__, 2)
    assert text.plain == "a░b"
    assert [span.style for span in text.spans] == ["dim", "bold green"]


@pytest.mark.parametrize("name", diffusion_files.shipped())
def test_shipped_models_answer_questions_they_were_not_trained_on(name: str) -> None:
    """Those whose answer is determined, as well as their card says or nearly so."""
    model = unspool.load(name)
    tasks = TASK_SETS[diffusion_files.task_set(diffusion_files.find(name))]
    card = (diffusion_files.SHIPPED / name / "README.md").read_text("utf-8")
    for task in tasks.tasks:
        told = float(re.findall(rf"^\| {task.name} \| \w+ \| (\S+) \|$", card, re.MULTILINE)[0])
        if task.dependent or told < 0.9:
            continue
        examples = held_out(task, 10)
        results = model.generate([tasks.prompt_ids(example.prompt) for example in examples])
        right = [task.right(e, tasks.answer_of(r.token_ids)) for e, r in zip(examples, results, strict=True)]
        assert sum(right) >= 8, task.name
    assert diffusion_files.is_diffusion(name)


def test_the_weights_that_ship_are_small() -> None:
    weights = [path.stat().st_size for path in diffusion_files.SHIPPED.glob("*/model.safetensors")]
    assert len(weights) == len(diffusion_files.shipped()) >= 1
    assert sum(weights) <= 12e6
