"""Certainty forcing: what is masked and what is counted, losses by hand, targets that are right, resumed training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from unspool.cli import app
from unspool.conformance.canvas_model import MockModel
from unspool.decoding.load import load
from unspool.errors import UnspoolError
from unspool.methods.diffusion.entropy_threshold import data as certainty_targets
from unspool.methods.diffusion.entropy_threshold.train import (
    CertaintyOptions,
    losses,
    mask_plan,
    order,
    step_loss,
    train,
)
from unspool.models.diffusion import CANVAS
from unspool.recipes.tiny_diffusion import train as canvas_model
from unspool.recipes.tiny_diffusion.directory import CURVE
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.tasks import END, LETTERS, MASK, Example, Task, TaskSet, letters
from unspool.recipes.tiny_diffusion.train import TASK_SETS, CanvasTrainingOptions
from unspool.recipes.tiny_diffusion.train import train as train_model

PLAIN = TaskSet(
    tasks=(
        # Always the same answer, which is learned at once, and one that nobody can know.
        Task("same", False, lambda rng: Example(["<same>", *letters(rng, 1)], ["b", "a", "c"])),
        Task("luck", False, lambda rng: Example(["<luck>"], letters(rng, 5))),
    ),
    symbols=LETTERS,
    prompt_length=2,
    canvas_length=6,
)
OPTIONS = CertaintyOptions(block_length=3, questions=30, max_steps=100, batch_size=16)


@pytest.fixture(scope="module", autouse=True)
def plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASK_SETS, "plain", PLAIN)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, plain: None) -> Path:
    path = tmp_path_factory.mktemp("certainty") / "base"
    torch.set_num_threads(1)
    tiny: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "batch_size": 32}
    train_model(path, CanvasTrainingOptions("plain", **tiny, intermediate_size=32, max_steps=150, warmup_steps=5))
    return path


@pytest.mark.parametrize("block_length", [1, 4, 5, 24])
def test_the_mask_plan(block_length: int) -> None:
    rows, first, length = 400, 10, 34
    one, other = mask_plan(np.random.default_rng(0), rows, first, length, block_length)
    blocks = -(-24 // block_length)
    seen = []
    for row in range(rows):
        both = one.counted[row] | other.counted[row]
        assert not (one.counted[row] & other.counted[row]).any(), "each token is masked in one of the two"
        block = (np.flatnonzero(both) - first) // block_length
        assert len(set(block)) == 1
        start = first + block[0] * block_length
        stop = min(start + block_length, length)
        assert both.sum() == stop - start, "the whole block is supervised, also the last, shorter one"
        for masks in (one, other):
            assert not masks.hidden[row, :start].any(), "prompt and earlier blocks are clean"
            assert (masks.hidden[row, start:stop] == masks.counted[row, start:stop]).all()
            assert masks.hidden[row, stop:].all()
            assert not masks.counted[row, stop:].any()
        seen.append(block[0])
    counts = np.bincount(seen, minlength=blocks)
    assert len(counts) == blocks
    assert np.abs(counts / rows - 1 / blocks).max() < 4 * (1 / blocks / rows) ** 0.5
    assert one.counted.sum() / (one.counted.sum() + other.counted.sum()) == pytest.approx(0.5, abs=0.05)
    assert len({row.tobytes() for row in one.counted}) > min(blocks, 20), "each row has its own"


def test_losses_by_hand() -> None:
    p = np.array([[[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]], [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [1 / 3] * 3]])
    ids = torch.tensor([[0, 0, 2], [1, 1, 0]])
    counted = torch.tensor([[True, True, False], [True, False, False]])
    consistency, certainty = losses(torch.from_numpy(np.log(p)), ids, counted)
    # Row 0 has 0.7 and 0.3, row 1 has 0.3; in row 0 the first is right, in row 1 none is.
    assert float(consistency) == pytest.approx(((-np.log(0.7) - np.log(0.3)) / 2 - np.log(0.3)) / 2, rel=1e-12)
    squared = np.array([0.49, 0.04, 0.01]) / 0.54  # temperature 1/2
    assert float(certainty) == pytest.approx(-(squared * np.log(squared)).sum() / 2, rel=1e-12)
    nothing = losses(torch.from_numpy(np.log(p)), ids, torch.zeros_like(counted))
    assert [float(value) for value in nothing] == [0.0, 0.0]


def test_certainty_never_pushes_a_wrong_prediction_or_what_is_not_counted() -> None:
    logits = torch.randn(8, 6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.randint(5, (8, 6), generator=torch.Generator().manual_seed(1))
    counted = torch.rand(8, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    losses(logits, ids, counted)[1].backward()
    assert logits.grad is not None
    pushed = logits.grad.abs().sum(-1) > 0
    assert (pushed == (counted & (logits.argmax(-1) == ids))).all()
    assert 0 < pushed.sum() < counted.sum()


def test_a_step_adds_both_forwards_and_beta_weighs_certainty() -> None:
    weight = torch.randn(7, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ids = torch.tensor([[4, 0, 1, 2, 3], [5, 3, 3, 0, 1]])
    asked: list[torch.Tensor] = []

    def model(input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        asked.append(input_ids)
        # What a position says depends on the whole canvas.
        return SimpleNamespace(logits=weight[input_ids] + weight[input_ids].sum(1, keepdim=True))

    plan = mask_plan(np.random.default_rng(1), 2, 1, 5, 2)
    values = [float(step_loss(model, ids % 4, plan, 6, beta)) for beta in (0.0, 1.0, 3.0)]
    assert [((given == 6).numpy() == masks.hidden).all() for given, masks in zip(asked, plan * 3, strict=True)] == [
        True
    ] * 6
    parts = [
        losses(model(given, False).logits, ids % 4, torch.from_numpy(masks.counted))
        for given, masks in zip(asked[:2], plan, strict=True)
    ]
    assert values[0] == pytest.approx(float(parts[0][0] + parts[1][0]), rel=1e-12), "beta = 0 is consistency alone"
    assert values[1] - values[0] == pytest.approx(float(parts[0][1] + parts[1][1]), rel=1e-9)
    assert values[2] - values[0] == pytest.approx(3 * (values[1] - values[0]), rel=1e-9)


def test_every_target_comes_once_an_epoch_and_orders_differ() -> None:
    whole = order(5, 7, 0, 21)
    assert [sorted(whole[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert len({tuple(whole[i : i + 7]) for i in (0, 7, 14)}) == 3
    assert (np.concatenate([order(5, 7, first, 3) for first in range(0, 21, 3)]) == whole).all()
    assert (order(6, 7, 0, 21) != whole).any()


class Writes(MockModel):
    """Fills every canvas of ``PLAIN`` with one text."""

    def __init__(self, *text: str) -> None:
        super().__init__(len(PLAIN.vocabulary))
        self.mask_id, self.eos_token_id = PLAIN.ids[MASK], PLAIN.ids[END]
        self._text = [PLAIN.ids[symbol] for symbol in text]

    def logits(self, tokens: Any) -> Any:
        logits = np.zeros((PLAIN.length, self.vocab_size))
        logits[np.arange(PLAIN.prompt_length, PLAIN.length), self._text] = 5.0
        return logits


def test_targets_are_the_right_answers_and_what_stands_behind_the_end_is_not_one(tmp_path: Path) -> None:
    def make(model: MockModel, told: str = "a", questions: int = 20) -> certainty_targets.Targets:
        return certainty_targets.make(tmp_path / "t.npz", told, model, PLAIN, questions, 3, 0)

    model = Writes("b", "a", "c", END, "x", "y")
    found = make(model)
    assert found.kept == {"same": 20, "luck": 0}
    assert found.ids.shape == (20, PLAIN.length)
    assert set(found.ids[:, 0]) == {PLAIN.ids["<same>"]}
    assert (found.ids[:, 2:] == PLAIN.canvas_ids(["b", "a", "c"])).all()
    assert len(set(found.ids[:, 1])) > 5, "questions differ"
    assert all(len(session.fed) == 6 for session in model.sessions), "one token a step"
    again = Writes(*["z"] * 6)
    assert (make(again).ids == found.ids).all()
    assert not again.sessions, "what is stored is not asked again"
    with pytest.raises(UnspoolError, match="other options"):
        make(model, told="b")
    with pytest.raises(UnspoolError, match="none of 6 questions correctly"):
        certainty_targets.make(tmp_path / "n.npz", "a", Writes(*["z"] * 6), PLAIN, 3, 3, 0)


def test_interrupted_targets_go_on_with_the_next_task(tmp_path: Path) -> None:
    def stop(what: str, done: int, of: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    model = Writes("b", "a", "c", END, END, END)
    arguments = (tmp_path / "t.npz", "a", model, PLAIN, 20, 3, 0)
    with pytest.raises(KeyboardInterrupt):
        certainty_targets.make(*arguments, stop)
    assert len(model.sessions) == 20
    assert certainty_targets.make(*arguments).kept == {"same": 20, "luck": 0}
    assert len(model.sessions) == 40


def test_training_resumes_to_the_same_model_which_is_more_certain(source: Path, tmp_path: Path) -> None:
    before = (source / "model.safetensors").read_bytes()
    targets = train(source, tmp_path / "whole", OPTIONS)
    assert targets.kept["same"] == 30
    assert targets.kept["luck"] == 0

    def stop(what: str, done: int, of: int) -> None:
        if (what, done) == ("training", 70):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(source, tmp_path / "parts", OPTIONS, stop)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    train(source, tmp_path / "parts", OPTIONS)
    train(source, tmp_path / "plain", replace(OPTIONS, beta=0.0))
    made = {name: AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "parts", "plain")}
    for a, b in zip(made["whole"].parameters(), made["parts"].parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(made["whole"].parameters(), made["plain"].parameters(), strict=True)
    )
    assert made["whole"].config.is_causal is False
    assert (source / "model.safetensors").read_bytes() == before

    def doubt(directory: Path) -> float:
        model = load(str(directory))
        with torch.no_grad():
            ids = torch.from_numpy(targets.ids.copy())
            ids[:, 2:] = PLAIN.ids[MASK]
            p = model.denoiser.model(input_ids=ids).logits[:, 2:].double().softmax(-1)  # type: ignore[attr-defined]
        return float(-(p * p.log()).sum(-1).mean())

    base, plain, forced = (doubt(path) for path in (source, tmp_path / "plain", tmp_path / "whole"))
    assert max(forced, plain) < base
    about = json.loads((tmp_path / "whole" / CANVAS).read_text())
    assert about["training"]["task_set"] == "plain"
    assert about["certainty"]["beta"] == 2.0
    assert about["certainty"]["targets"] == 30
    curve = json.loads((tmp_path / "whole" / CURVE).read_text())
    assert [point["step"] for point in curve] == [50, 100]
    assert curve[1]["loss"] < curve[0]["loss"]
    with pytest.raises(UnspoolError, match="other options"):
        train(source, tmp_path / "whole", replace(OPTIONS, learning_rate=1e-4))


def test_what_does_not_fit_is_told_before_any_work(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match="does not divide a canvas of 6 slots"):
        train(source, tmp_path / "out", replace(OPTIONS, block_length=4))
    with pytest.raises(UnspoolError, match="contains the source model"):
        train(source, source, OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"beta": -1.0}, {"beta": float("nan")}, {"block_length": 0}, {"questions": 0}, {"max_steps": 0}, {"batch_size": 0}]
    + [{"learning_rate": rate} for rate in (0.0, float("inf"))],
)
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnspoolError):
        replace(OPTIONS, **wrong)


def test_the_command(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas_model, "QUESTIONS", 4)
    arguments = ["train", "entropy_threshold:questions=5,max_steps=2,block_length=3,batch_size=4"]
    arguments += ["-m", str(source), "-o", str(tmp_path / "m"), "--threads", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "same                   5    1.00 -> 1.00" in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--json"])
    rows = json.loads(result.stdout)
    assert [(row["task"], row["targets"], row["accuracy_after"]) for row in rows] == [
        ("same", 5, 1.0),
        ("luck", 0, 0.0),
    ]
    assert all(2 <= row["passes_after"] <= 6 for row in rows)
    text = load(str(tmp_path / "m")).generate("<same> q", method="entropy_threshold").text
    assert text == "bac"
    missing = CliRunner().invoke(app, ["train", "entropy_threshold", "-m", str(tmp_path / "no"), "-o", "m"])
    assert "no such diffusion model" in str(missing.exception)


def test_short_tasks_keep_their_questions_apart_from_training() -> None:
    """Streams are keyed by (seed, task, 2); training's by (seed, step), the filter's by (seed, 0, 1)."""
    own = [SHORT.tasks[0].sample(np.random.default_rng([0, 0, 2])).prompt for _ in range(1)]
    others = [SHORT.tasks[0].sample(np.random.default_rng(key)).prompt for key in ([0, 0], [0, 0, 1])]
    assert own[0] not in others
