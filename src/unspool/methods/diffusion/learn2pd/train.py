"""Training of Learn2PD's filter, which predicts whether a prediction is already final.

Each prompt is decoded one token per step. Then an empty canvas is filled again, and each pass commits exactly the
predictions that equal the final text (the paper's extremely greedy parallel decoding). The confidences of the block
with these verdicts are one example. If two passes predict the same, the block is filled in from the final text. The
base model is not changed.

Loss: cross-entropy over all slots of the block, masked or not; AdamW, all examples in each step. A tenth of the
examples is held out; the filter that is best on them is kept, and compared there with a filter that sees one slot only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.canvas import DiffusionModel
from unspool.engine.canvas import CanvasPass
from unspool.engine.noise import SEEDS
from unspool.engine.numeric import softmax
from unspool.engine.option import Options, option
from unspool.engine.progress import Progress, silent
from unspool.engine.turns import turn
from unspool.errors import UnspoolError
from unspool.methods import ONE_BY_ONE
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.learn2pd import KIND, METHOD_NAME, UnmaskFilter
from unspool.models import diffusion as diffusion_files
from unspool.training.artifact import Artifact, file_of
from unspool.training.checkpoint import check_counts
from unspool.training.trainer import Job, Report, Run, Trainer

if TYPE_CHECKING:
    import torch

    from unspool.decoding.model import Model

_CHECKED = 50  # steps between evaluations on the held-out examples


@dataclass(frozen=True)
class Examples:
    """Partly filled blocks.

    Attributes:
        confidence: [n, block] probability of each slot's prediction.
        final: [n, block] whether the prediction equals the final text.
        passes: passes of the replay, by prompt.
        alike: by prompt, whether the replay gave the final text.
    """

    confidence: NDArray[np.float32]
    final: NDArray[np.bool_]
    passes: list[int]
    alike: list[bool]


@dataclass(frozen=True)
class FilterOptions(Options):
    """The options of `unspool train learn2pd`. Defaults are the paper's, except for the number of steps.

    Attributes:
        questions: number of training questions per task.
        block_length: slots of a block.
        learning_rate: constant.
        max_steps: training steps, each over all examples.
        seed: of questions, initialisation and split; the same seed gives the same filter.
    """

    questions: int = option(30, least=1, most=100_000)
    block_length: int = 8
    learning_rate: float = option(3e-3, above=0)
    max_steps: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "block_length", "max_steps")
        if self.seed not in SEEDS:
            raise UnspoolError(f"seed must lie in 0 to 2^64 - 1, not {self.seed}")


def replay(model: DiffusionModel, prompts: Sequence[Sequence[int]], block_length: int, progress: Progress) -> Examples:
    """Decode prompts and replay them.

    Raises:
        UnspoolError: if the block length does not divide the model's canvas.
    """
    finished = model.generate(
        [list(prompt) for prompt in prompts],
        method=f"fixed_blocks:block_length={block_length}+{ONE_BY_ONE}",
    )
    confidence: list[NDArray[np.float32]] = []
    final: list[NDArray[np.bool_]] = []
    passes, alike = [], []
    for done, result in enumerate(finished):
        progress("replay", done, len(finished))
        # The whole canvas, not only the text: the slots after the end are decoded too.
        slots = next(event.slots for event in reversed(result.trace) if hasattr(event, "slots"))
        steps, same = _replay(model, result.prompt_token_ids, np.array(slots), block_length)
        confidence += [c for c, _ in steps]
        final += [r for _, r in steps]
        passes.append(len(steps))
        alike.append(same)
    progress("replay", len(finished), len(finished))
    return Examples(np.array(confidence), np.array(final), passes, alike)


def _replay(
    model: DiffusionModel, prompt: Sequence[int], reference: NDArray[np.int64], block_length: int
) -> tuple[list[tuple[NDArray[np.float32], NDArray[np.bool_]]], bool]:
    denoiser, first = model.denoiser, len(prompt)
    tokens = np.array([*prompt, *[denoiser.mask_id] * len(reference)], dtype=np.int64)
    steps = []
    with closing(denoiser.open()) as session:
        for start in range(0, len(reference), block_length):
            block = slice(first + start, first + start + block_length)
            wanted = reference[start : start + block_length]
            before = None
            while (tokens[block] == denoiser.mask_id).any():
                with turn(denoiser):
                    logits = session.score(CanvasPass(tokens, 0, len(tokens))).logits[block].astype(np.float64)
                logits[:, denoiser.mask_id] = -np.inf
                predicted = logits.argmax(axis=1)
                right = predicted == wanted
                chances = np.array([softmax(row) for row in logits])[np.arange(len(wanted)), predicted]
                steps.append((chances.astype(np.float32), right))
                if before is not None and (predicted == before).all():
                    tokens[block] = wanted
                masked = tokens[block] == denoiser.mask_id
                tokens[block] = np.where(masked & right, wanted, tokens[block])
                before = predicted
    return steps, bool((tokens[first:] == reference).all())


def train(
    examples: Examples, options: FilterOptions, progress: Progress = silent
) -> tuple[UnmaskFilter, dict[str, Any]]:
    """Fit a filter.

    Returns:
        The filter; and ``loss`` (cross-entropy on held-out examples), ``loss_alone`` (of a logistic filter that sees
        one slot's confidence), ``precision`` and ``recall`` at 0.9, ``examples``, ``held_out``.

    Raises:
        UnspoolError: if there are too few examples to hold some out.
    """
    import torch

    count = len(examples.confidence)
    if count < 20:
        raise UnspoolError(f"{count} passes are too few to train on; give more prompts")
    order = np.random.default_rng(options.seed).permutation(count)
    held_out, kept = order[: count // 10], order[count // 10 :]
    x, y = torch.from_numpy(examples.confidence), torch.from_numpy(examples.final.astype(np.float32))
    width = options.block_length
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width))
        # One logistic curve for every slot, in effect a threshold: the baseline of the filter.
        alone = torch.nn.Sequential(torch.nn.Unflatten(1, (width, 1)), torch.nn.Linear(1, 1), torch.nn.Flatten())
    data = (x[kept], y[kept], x[held_out], y[held_out])
    losses = [_fit(network, *data, options, progress), _fit(alone, *data, options, silent)]
    best = _weights(network)
    said = best(examples.confidence[held_out].astype(np.float64)) > 0.9
    truth = examples.final[held_out]
    return best, {
        "loss": losses[0],
        "loss_alone": losses[1],
        "precision": float((said & truth).sum() / max(1, said.sum())),
        "recall": float((said & truth).sum() / max(1, truth.sum())),
        "examples": len(kept),
        "held_out": len(held_out),
    }


def _fit(
    network: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    x_held_out: torch.Tensor,
    y_held_out: torch.Tensor,
    options: FilterOptions,
    progress: Progress,
) -> float:
    """Train in place and keep the weights with the lowest held-out loss, which is returned."""
    import torch

    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    lowest, best = float("inf"), network.state_dict()
    for step in range(1, options.max_steps + 1):
        optimizer.zero_grad()
        cross_entropy(network(x), y).backward()
        optimizer.step()
        if step % _CHECKED == 0 or step == options.max_steps:
            with torch.no_grad():
                value = float(cross_entropy(network(x_held_out), y_held_out))
            if value < lowest:
                lowest, best = value, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        progress("training", step, options.max_steps)
    network.load_state_dict(best)
    return lowest


def _weights(network: torch.nn.Module) -> UnmaskFilter:
    first, second = (layer for layer in network.children() if hasattr(layer, "weight"))
    arrays = (first.weight.T, first.bias, second.weight.T, second.bias)
    return UnmaskFilter(*(tensor.detach().numpy().copy() for tensor in arrays))


def _prepare(job: Job, options: FilterOptions) -> Run:
    from unspool.recipes.tiny_diffusion.train import TASK_SETS

    directory = job.model
    tasks = TASK_SETS[diffusion_files.task_set(directory)]
    FixedBlocks(FixedBlocksOptions(options.block_length)).check(tasks.canvas_length)

    def run(_: Model | None, progress: Progress) -> Report:
        from unspool.decoding.load import load

        rng = np.random.default_rng([options.seed, 0, 1])
        questions = [
            tasks.prompt_ids(task.sample(rng).prompt) for task in tasks.tasks for _ in range(options.questions)
        ]
        examples = replay(load(str(directory), expect=DiffusionModel), questions, options.block_length, progress)
        made, figures = train(examples, options, progress)
        figures |= {"replay_passes": float(np.mean(examples.passes)), "replay_alike": float(np.mean(examples.alike))}
        about = {"models": [directory.name], "options": asdict(options), **figures}
        file = file_of(job.output, METHOD_NAME)
        Artifact(KIND, METHOD_NAME, (diffusion_files.key(directory),), made.tensors, about).save(file)
        return Report(
            figures,
            [
                f"{file}: loss {figures['loss']:.3f} on {figures['held_out']} held-out blocks, "
                f"{figures['loss_alone']:.3f} with each slot seen alone; "
                f"at 0.9 precision {figures['precision']:.2f}, recall {figures['recall']:.2f}",
                f"replay of the final text: {figures['replay_passes']:.1f} passes for {tasks.canvas_length} "
                f"slots, {figures['replay_alike']:.0%} gave that text",
            ],
        )

    return run


TRAINER = Trainer(
    summary="The filter that predicts whether a prediction of a masked-diffusion model is already final.",
    options=FilterOptions,
    prepare=_prepare,
    trains_for="canvas",
    beside=True,
)
