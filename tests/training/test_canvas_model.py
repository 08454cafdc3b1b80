"""Training of a masked-diffusion model: what a batch holds, the same model from the same seed, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from unspool.backends import diffusion as diffusion_models
from unspool.cli import app
from unspool.errors import UnspoolError
from unspool.models.diffusion import CANVAS
from unspool.models.tokenizer import Tokenizer
from unspool.recipes.tiny_diffusion import train as canvas_model
from unspool.recipes.tiny_diffusion.directory import CURVE, tokenizer
from unspool.recipes.tiny_diffusion.long_tasks import LONG
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.tasks import END, MASK, PAD, TaskSet
from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions, batch, loss, network, train

TINY = CanvasTrainingOptions(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_steps=100,
    batch_size=8,
    warmup_steps=5,
    save_steps=50,
)


def test_a_batch_masks_answers_alone_in_evenly_spread_shares() -> None:
    options = replace(TINY, batch_size=64)
    shares = []
    for step in range(40):
        ids, masked = batch(options, step)
        assert ids.shape == masked.shape == (64, SHORT.length)
        assert not masked[:, : SHORT.prompt_length].any()
        assert masked.any(dim=1).all()
        assert not (ids == SHORT.ids[MASK]).any()
        shares.append(np.sort(masked[:, SHORT.prompt_length :].float().mean(dim=1).numpy()))
    # The i-th smallest share of a batch is near i / 64 in every batch, not on average alone.
    assert np.abs(np.mean(shares, axis=0) - (np.arange(64) + 0.5) / 64).max() < 0.04
    assert np.abs(np.array(shares).mean(axis=1) - 0.5).max() < 0.05


def test_tasks_are_drawn_by_their_weights() -> None:
    weights = tuple((task.name, float(task.name == "sort")) for task in SHORT.tasks)
    ids, _ = batch(replace(TINY, weights=weights), 0)
    assert set(ids[:, 0].tolist()) == {SHORT.ids["<sort>"]}


def test_long_tasks_have_a_canvas_of_their_own() -> None:
    ids, masked = batch(replace(TINY, task_set="long"), 0)
    assert ids.shape == (8, LONG.length)
    assert ids.max() < len(LONG.vocabulary) == network(replace(TINY, task_set="long")).config.vocab_size
    assert not masked[:, : LONG.prompt_length].any()


def test_the_loss_is_that_of_masked_slots() -> None:
    model, (ids, masked) = network(TINY).eval(), batch(TINY, 0)
    with torch.no_grad():
        logits = model(input_ids=torch.where(masked, SHORT.ids[MASK], ids)).logits.log_softmax(-1)
        expected = -logits.gather(2, ids[..., None])[..., 0][masked].mean()
        assert float(loss(model, ids, masked)) == pytest.approx(float(expected), rel=1e-5)


def test_the_model_sees_the_whole_canvas() -> None:
    model = network(TINY).eval()
    ids = torch.zeros((1, 34), dtype=torch.long)
    other = ids.clone()
    other[0, -1] = 5
    with torch.no_grad():
        assert (model(input_ids=ids).logits[0, 0] - model(input_ids=other).logits[0, 0]).abs().max() > 1e-6


def test_an_interrupted_run_gives_the_same_model_and_the_loss_falls(tmp_path: Path) -> None:
    train(tmp_path / "whole", TINY)

    def stop(what: str, done: int, of: int) -> None:
        if done == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", TINY, stop)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    train(tmp_path / "parts", TINY)
    whole, parts = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert whole.config.is_causal is False
    curve = json.loads((tmp_path / "whole" / CURVE).read_text())
    assert [point["step"] for point in curve] == [50, 100]
    assert curve[1]["loss"] < curve[0]["loss"]
    about = json.loads((tmp_path / "whole" / CANVAS).read_text())
    assert diffusion_models.tokenizer(tmp_path / "whole").token(about["mask_id"]) == MASK
    with pytest.raises(UnspoolError, match="other options"):
        train(tmp_path / "whole", replace(TINY, seed=1))


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = set()

    def watched(model: torch.nn.Module, ids: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            kinds.add(model(input_ids=ids[:1]).logits.dtype)
        return loss(model, ids, masked)

    monkeypatch.setattr(canvas_model, "loss", watched)
    for name, bf16 in (("plain", False), ("bf16", True)):
        kinds.clear()
        train(tmp_path / name, replace(TINY, bf16=bf16))
        assert kinds == {torch.bfloat16 if bf16 else torch.float32}
    plain, rounded = (json.loads((tmp_path / name / CURVE).read_text())[1]["loss"] for name in ("plain", "bf16"))
    assert rounded != plain
    assert rounded == pytest.approx(plain, rel=0.02)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16", dtype="auto")
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.float32}
    assert stored.config._attn_implementation == "sdpa", "eager attention is for training alone"


def test_training_goes_on_from_another_model(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(first, TINY)
    more = replace(TINY, seed=1, max_steps=50, weights=(("sort", 3.0),), start=str(first))
    begun = network(more)
    kept = AutoModelForCausalLM.from_pretrained(first)
    assert all(torch.equal(a, b) for a, b in zip(begun.parameters(), kept.parameters(), strict=True))
    train(second, more)
    trained = AutoModelForCausalLM.from_pretrained(second)
    assert not all(torch.equal(a, b) for a, b in zip(trained.parameters(), kept.parameters(), strict=True))
    curve, before = (json.loads((directory / CURVE).read_text()) for directory in (second, first))
    assert [point["step"] for point in curve] == [50, 100, 150] and curve[:2] == before
    assert curve[2]["seconds"] > before[1]["seconds"]
    about = json.loads((second / CANVAS).read_text())
    assert about["seconds"] == round(curve[2]["seconds"])
    assert about["training"]["start"] == json.loads((first / CANVAS).read_text())["training"], "and no path"
    with pytest.raises(UnspoolError, match="another shape"):
        train(tmp_path / "third", replace(more, hidden_size=8))
    with pytest.raises(UnspoolError, match="contains no model"):
        train(tmp_path / "third", replace(more, start=str(tmp_path)))
    assert not (tmp_path / "third" / "model.safetensors").exists()


@pytest.mark.parametrize("tasks", [SHORT, LONG])
def test_texts_are_read_and_written(tasks: TaskSet, tmp_path: Path) -> None:
    tokenizer(tasks).save(str(tmp_path / "tokenizer.json"))
    read = Tokenizer(tmp_path)
    rng = np.random.default_rng(0)
    for task in tasks.tasks:
        example = task.sample(rng)
        assert read.encode(" ".join(example.prompt)) == [tasks.ids[symbol] for symbol in example.prompt]
        ids = [tasks.ids[symbol] for symbol in example.answer]
        assert read.encode("".join(example.answer)) == ids
        assert read.decode([*ids, tasks.ids[END], tasks.ids[PAD]]) == "".join(example.answer)
    with pytest.raises(Exception, match="Missing"):
        read.encode("a ? b")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas_model, "QUESTIONS", 2)
    small = "max_steps=2, hidden_size=16"
    result = CliRunner().invoke(app, ["train", f"diffusion({small})", "-o", str(tmp_path / "m"), "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["accuracy"]) == {task.name for task in SHORT.tasks}
    assert (tmp_path / "m" / "model.safetensors").exists()
    card = (tmp_path / "m" / "README.md").read_text()
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "m").num_parameters()
    assert f"of {stored:,} parameters" in card and "2 steps of 64 canvases" in card
    assert all(f"| {task.name} |" in card for task in SHORT.tasks)
    assert "<svg" in (tmp_path / "m" / "curve.svg").read_text()
    more = f"{small}, start='{tmp_path / 'm'}', seed=1, weights=(('sort', 2), ('copy', 0.5))"
    assert CliRunner().invoke(app, ["train", f"diffusion({more})", "-o", str(tmp_path / "more")]).exit_code == 0
    training = json.loads((tmp_path / "more" / CANVAS).read_text())["training"]
    assert training["weights"] == [["sort", 2.0], ["copy", 0.5]] and training["start"]["max_steps"] == 2
    assert "4 steps of 64 canvases" in (tmp_path / "more" / "README.md").read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"hidden_size": 15},
        {"save_steps": 60},
        {"task_set": "middling"},
        {"weights": (("sorting", 1.0),)},
        {"weights": (("sort", -1.0),)},
        {"weights": (("sort", 1.0), ("sort", 2.0))},
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UnspoolError):
        replace(TINY, **wrong)  # type: ignore[arg-type]
