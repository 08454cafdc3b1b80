"""Learn2PD's filter: the replay ends in the finished text, what is learned is used, and both are exact at the edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.specs import canvas
from tests.trained import unmask_filter
from unspool.cli import app
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.engine.trace import CanvasEvent
from unspool.errors import UnspoolError
from unspool.methods.diffusion.learn2pd import UnmaskFilter
from unspool.methods.diffusion.learn2pd.train import Examples, FilterOptions, replay, train
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions
from unspool.recipes.tiny_diffusion.train import train as train_model


def quiet(what: str, done: int, of: int) -> None: ...


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filter") / "untrained"
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    train_model(path, CanvasTrainingOptions(**tiny, max_steps=20, batch_size=8))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> DiffusionModel:
    return load(str(directory))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [SHORT.prompt_ids(task.sample(rng).prompt) for task in SHORT.tasks]


def test_the_replay_ends_in_the_finished_text(model: DiffusionModel, prompts: list[list[int]]) -> None:
    examples = replay(model, prompts, 8, quiet)
    assert all(examples.alike)
    assert sum(examples.passes) == len(examples.confidence) == len(examples.final)
    assert all(3 <= passes <= 2 * SHORT.canvas_length for passes in examples.passes), "at least a pass a block"
    assert examples.confidence.shape[1] == 8
    assert ((examples.confidence > 0) & (examples.confidence <= 1)).all()


def test_a_filter_that_says_no_is_one_token_a_step_and_one_that_says_yes_is_a_pass_a_block(
    model: DiffusionModel, prompts: list[list[int]], tmp_path: Path
) -> None:
    zero = np.zeros((8, 8), np.float32)
    for bias, method in ((-9.0, "fixed_blocks:block_length=8+top_k"), (9.0, "")):
        path = tmp_path / f"{bias}.artifact"
        unmask_filter(path, zero, np.zeros(8, np.float32), zero, np.full(8, bias, np.float32))
        found = model.generate(prompts, method=f"fixed_blocks:block_length=8+learn2pd:filter={path}")
        if method:
            plain = model.generate(prompts, method=method)
            assert [r.token_ids for r in found] == [r.token_ids for r in plain]
        else:
            assert all(result.statistics.passes == 3 for result in found)


def test_what_depends_on_neighbours_is_learned_and_one_slot_alone_is_not_enough() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random((3000, 4)).astype(np.float32)
    # A prediction is final if its right neighbour is sure, whatever its own confidence.
    final = np.roll(confidence, -1, axis=1) > 0.6
    examples = Examples(confidence, final, [], [])
    made, figures = train(examples, FilterOptions(block_length=4, max_steps=600, learning_rate=0.03))
    assert figures["loss"] < 0.6 * figures["loss_alone"]
    assert figures["precision"] > 0.9
    assert figures["examples"] + figures["held_out"] == 3000
    again, _ = train(examples, FilterOptions(block_length=4, max_steps=600, learning_rate=0.03))
    assert (again.first == made.first).all(), "the same seed gives the same filter"


def test_a_short_block_is_filled_up_with_decided_slots() -> None:
    rng = np.random.default_rng(2)
    made = UnmaskFilter(*(rng.normal(size=shape).astype(np.float32) for shape in ((6, 6), 6, (6, 6), 6)))
    confidence = rng.random(4)
    np.testing.assert_allclose(made(confidence), made(np.array([*confidence, 1, 1]))[:4])


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_blocks_are_those_of_the_filter_unless_a_schedule_makes_shorter_ones(
    model: DiffusionModel, prompts: list[list[int]], tmp_path: Path, cache: str
) -> None:
    path = tmp_path / "f.artifact"
    zero = np.zeros((6, 6), np.float32)
    unmask_filter(path, zero, np.zeros(6, np.float32), zero, np.full(6, -9, np.float32))

    def blocks(names: str, **schedule: dict[str, object]) -> list[list[tuple[int, tuple[int, ...]]]]:
        method = canvas(names, {**schedule, "learn2pd": {"filter": str(path)}})
        found = model.generate(prompts, method=method, cache=cache)
        return [[(e.block, e.committed) for e in r.trace if isinstance(e, CanvasEvent)] for r in found]

    own = blocks("learn2pd")
    assert own == blocks("fixed_blocks+learn2pd", fixed_blocks={"block_length": 6})
    assert own == blocks("fixed_blocks+learn2pd", fixed_blocks={"block_length": 12})
    assert all(slot // 6 == block for row in own for block, slots in row for slot in slots)
    shorter = blocks("fixed_blocks+learn2pd", fixed_blocks={"block_length": 4})
    assert all(slot // 4 == block for row in shorter for block, slots in row for slot in slots)
    # The delimiter is one that is never predicted: AdaBlock's own blocks of 32 slots end where the filter does.
    adaptive = {"delimiter_ids": [SHORT.ids["<pad>"]], "delimiter_threshold": 1.0}
    assert own == blocks("adablock+learn2pd", adablock=adaptive)


def test_a_filter_that_is_missing_is_told(model: DiffusionModel, prompts: list[list[int]], tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match=r"cannot read .*; train one with `unspool train learn2pd`"):
        model.generate(prompts, method=f"learn2pd:filter={tmp_path / 'none.artifact'}")
    zero = np.zeros((8, 8), np.float32)
    unmask_filter(tmp_path, zero, zero[0], zero, zero[0], belongs_to=("another model",))
    with pytest.raises(UnspoolError, match="the unmask filter was trained for other models"):
        model.generate(prompts, method=f"learn2pd:filter={tmp_path}")
    unmask_filter(tmp_path, zero, zero[0], zero, zero[0][:4])
    with pytest.raises(UnspoolError, match="no tensor 'second_bias'"):
        model.generate(prompts, method=f"learn2pd:filter={tmp_path}")


def test_the_command_writes_the_filter_that_the_method_finds(directory: Path, prompts: list[list[int]]) -> None:
    arguments = ["train", "learn2pd:questions=2,max_steps=20", "-m", str(directory)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "precision" in result.stdout and "100% gave that text" in result.stdout
    assert load(str(directory)).generate(prompts[0], method="learn2pd").statistics.passes >= 3
    result = CliRunner().invoke(app, ["generate", "-m", str(directory), "--method", "learn2pd", "<sort> d a c b"])
    assert result.exit_code == 0, result.output
