"""dParallel: Learnable Parallel Decoding for dLLMs (2025): certainty-forcing distillation of a masked-diffusion model.

Tokens become certain from left to right, which limits how many a threshold can commit at once. The model's own correct
answers, decoded one token per step, become its targets. On half-masked blocks it is trained to reproduce them and to
be *certain* of what it already predicts correctly. No second model is needed. The result is decoded with
``entropy_threshold``, whose default is the paper's.

One example: a block of the answer is drawn. Tokens before it are clean, tokens after it are masked, and each of its
tokens is masked with probability 1/2. Over the masked tokens of that block only, the loss is the mean cross-entropy
L_cons, plus beta times L_cert, the mean entropy at temperature 1/2 of those that the model predicts correctly. As in
the released code, a second forward masks the other tokens of the block, and the losses are added.

Guarantee: the text changes, as for any trained model. If several answers are correct, it learns the one that it wrote,
so speed may cost variety. Probabilities are no longer calibrated, so thresholds must be chosen again.

Choices: blocks and masks are drawn for each row of a batch (the released code draws one mask for all). Means are taken
for each row, then over the rows, as for batches of one with accumulated gradients. All weights are trained: LoRA, which
the paper needs for models of 8 B, is omitted. Blocks as long as the canvas are the paper's variant for Dream.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.backends.prepare import quiet
from unspool.backends.torch.checkpoints import load_denoiser
from unspool.engine.canvas import Flags
from unspool.engine.noise import SEEDS
from unspool.engine.option import Options
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.methods.diffusion.entropy_threshold import data as certainty_targets
from unspool.methods.diffusion.entropy_threshold.data import Targets
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.models.diffusion import CANVAS, task_set
from unspool.recipes.tiny_diffusion import directory as canvas_directory
from unspool.recipes.tiny_diffusion.train import TASK_SETS
from unspool.storage import cache as store
from unspool.training import checkpoint
from unspool.training.checkpoint import check_counts
from unspool.training.trainer import Job, Report, Run, Trainer

if TYPE_CHECKING:
    import torch

    from unspool.decoding.model import Model

MASKED = 0.5  # q
TEMPERATURE = 0.5  # T of L_cert


@dataclass(frozen=True)
class CertaintyOptions(Options):
    """The options of `unspool train entropy_threshold`. Beta is the paper's for LLaDA; the rest is for small models.

    Attributes:
        beta: weight of the certainty loss; 0 trains only on the targets.
        block_length: slots of a block, of the targets and of the masks; must divide the canvas.
        questions: number per task; the correct answers are the targets.
        max_steps: training steps.
        batch_size: canvases per step.
        learning_rate: constant.
        seed: of questions, order and masks.
    """

    beta: float = 2.0
    block_length: int = 8
    questions: int = 500
    max_steps: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "block_length", "questions", "max_steps", "batch_size")
        if self.seed not in SEEDS:
            raise UnspoolError(f"seed must lie in 0 to 2^64 - 1, not {self.seed}")
        if not 0 <= self.beta < float("inf"):
            raise UnspoolError(f"beta must be at least 0, not {self.beta}")
        if not 0 < self.learning_rate < float("inf"):
            raise UnspoolError(f"learning_rate must be above 0, not {self.learning_rate}")

    @property
    def method(self) -> str:
        """The method that decodes the trained model."""
        return f"fixed_blocks:block_length={self.block_length}+entropy_threshold"


class Masks(NamedTuple):
    """One of the two forwards of a step.

    Attributes:
        hidden: [rows, positions] where the model sees a mask.
        counted: [rows, positions] where the loss is computed.
    """

    hidden: Flags
    counted: Flags


def mask_plan(rng: np.random.Generator, rows: int, prompt_length: int, length: int, block_length: int) -> list[Masks]:
    """The masks of both forwards. Each row has its own block; the last block may be shorter."""
    slots = np.arange(length) - prompt_length
    blocks = -(-(length - prompt_length) // block_length)
    active = rng.integers(blocks, size=(rows, 1))
    own = slots // block_length == active  # prompts have negative blocks
    ahead = slots // block_length > active
    drawn = rng.random((rows, length)) < MASKED
    return [Masks(half | ahead, half) for half in (own & drawn, own & ~drawn)]


def losses(logits: torch.Tensor, ids: torch.Tensor, counted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L_cons and L_cert of one forward.

    Args:
        logits: [rows, positions, vocabulary].
        ids: [rows, positions] targets.
        counted: [rows, positions] positions averaged over; for L_cert only those whose most likely token is the
            target. A row without any adds 0.
    """
    surprise = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    tempered = (logits / TEMPERATURE).log_softmax(-1)
    entropy = -(tempered.exp() * tempered).sum(-1)
    return _mean(surprise, counted), _mean(entropy, counted & (logits.argmax(-1) == ids))


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of the rows' means."""
    return ((values * where).sum(-1) / where.sum(-1).clamp(min=1)).mean()


def step_loss(
    model: Callable[..., Any], ids: torch.Tensor, plan: list[Masks], mask_id: int, beta: float
) -> torch.Tensor:
    """L_cons + beta L_cert of all forwards, added."""
    import torch

    total = torch.zeros(())
    for masks in plan:
        hidden = torch.from_numpy(masks.hidden)
        logits = model(input_ids=ids.masked_fill(hidden, mask_id), use_cache=False).logits
        consistency, certainty = losses(logits, ids, torch.from_numpy(masks.counted))
        total = total + consistency + beta * certainty
    return total


def order(seed: int, count: int, first: int, size: int) -> NDArray[np.int64]:
    """The targets at places ``first`` to ``first + size`` of endless epochs, each shuffled separately."""
    places = np.arange(first, first + size)
    epochs = {e: np.random.default_rng([seed, int(e), 3]).permutation(count) for e in np.unique(places // count)}
    return np.array([epochs[place // count][place % count] for place in places])


def train(
    source: Path,
    directory: Path,
    options: CertaintyOptions | None = None,
    progress: Progress = silent,
) -> Targets:
    """Distil the model of ``source`` into a Hugging Face model in ``directory``; resumes the state found there.

    Args:
        source: directory that ``unspool train diffusion`` wrote; it is not changed.

    Returns:
        The answers that it was trained on.

    Raises:
        UnspoolError: if the block length does not divide the canvas, the model answers nothing correctly, or
            ``directory`` is that of the source or of another training.
        UnsupportedError: if the model was not trained on tasks with checkers.
    """
    import torch

    options = options or CertaintyOptions()
    tasks = TASK_SETS[task_set(source)]
    FixedBlocks(FixedBlocksOptions(options.block_length)).check(tasks.canvas_length)
    if directory.resolve() == source.resolve():
        raise UnspoolError(f"{directory} contains the source model; use another directory")
    directory.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {"model": store.sha256_of(source / "model.safetensors")}
    told = json.dumps(asked | asdict(options))
    asked |= {"questions": options.questions, "block_length": options.block_length, "seed": options.seed}
    with quiet():
        denoiser = load_denoiser(source)
    student = denoiser.model
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.learning_rate, weight_decay=0.01)
    targets = certainty_targets.make(
        directory / certainty_targets.FILE,
        json.dumps(asked),
        denoiser,
        tasks,
        options.questions,
        options.block_length,
        options.seed,
        progress,
    )
    first, curve = checkpoint.resume(directory / checkpoint.STATE, told, [optimizer], model=student)
    start = time.perf_counter() - (curve[-1][2] if curve else 0.0)
    student.train()
    recent: list[float] = []
    for step in range(first, options.max_steps):
        chosen = order(options.seed, len(targets.ids), step * options.batch_size, options.batch_size)
        rng = np.random.default_rng([options.seed, step, 4])
        plan = mask_plan(rng, options.batch_size, tasks.prompt_length, tasks.length, options.block_length)
        optimizer.zero_grad()
        value = step_loss(student, torch.from_numpy(targets.ids[chosen]), plan, denoiser.mask_id, options.beta)
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        recent.append(float(value.detach()))
        done = step + 1
        if done % checkpoint.PIECE == 0 or done == options.max_steps:
            curve.append((done, sum(recent) / len(recent), time.perf_counter() - start))
            recent = []
            checkpoint.save(directory / checkpoint.STATE, told, done, curve, [optimizer], model=student)
        progress("training", done, options.max_steps)
    student.eval()
    training = json.loads((source / CANVAS).read_text("utf-8"))["training"]
    about = {"training": training, "certainty": asdict(options) | {"targets": len(targets.ids)}}
    canvas_directory.write(directory, student, tasks, about, curve)
    return targets


def _prepare(job: Job, options: CertaintyOptions) -> Run:
    source, tasks = job.model, TASK_SETS[task_set(job.model)]

    def run(_: Model | None, progress: Progress) -> Report:
        import torch

        from unspool.bench.tradeoff import Setting, measure
        from unspool.decoding.canvas import DiffusionModel
        from unspool.decoding.load import load
        from unspool.recipes.tiny_diffusion.train import QUESTIONS

        torch.set_num_threads(job.threads or 2)
        targets = train(source, job.output, options, progress)
        setting = Setting(options.method, options.method)
        before, after = (
            measure(load(str(directory), expect=DiffusionModel), tasks, [setting], QUESTIONS)
            for directory in (source, job.output)
        )
        found: list[dict[str, Any]] = [
            {
                "task": old.task,
                "targets": targets.kept[old.task],
                "accuracy": sum(old.right) / QUESTIONS,
                "accuracy_after": sum(new.right) / QUESTIONS,
                "passes": sum(old.passes) / QUESTIONS,
                "passes_after": sum(new.passes) / QUESTIONS,
            }
            for old, new in zip(before, after, strict=True)
        ]
        lines = [
            f"{QUESTIONS} held-out questions, {options.method}, before -> after:",
            f"{'task':16}{'targets':>8}{'accuracy':>16}{'passes':>16}",
        ]
        for row in found:
            accuracy = f"{row['accuracy']:.2f} -> {row['accuracy_after']:.2f}"
            passes = f"{row['passes']:.1f} -> {row['passes_after']:.1f}"
            lines.append(f"{row['task']:16}{row['targets']:8}{accuracy:>16}{passes:>16}")
        return Report(found, lines)

    return run


TRAINER = Trainer(
    summary="A copy of a masked-diffusion model that is certain of more tokens at once, for decoding with this rule.",
    options=CertaintyOptions,
    prepare=_prepare,
    trains_for="canvas",
)
