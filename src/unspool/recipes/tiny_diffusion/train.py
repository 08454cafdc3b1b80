"""Trains a small masked-diffusion LM on the tasks of this package, from scratch, on a CPU.

The network is stock GPT-2 without its causal mask. Its learned positions suit fixed layouts better than Llama's
relative ones.

Loss: mean cross-entropy over masked slots. It has the same optimum as the likelihood bound, without the bound's weights
1/t. Every canvas has a random share t of its slots masked; the t of a batch are spread evenly over 0 to 1 from one
random start. Prompts are never masked; end tokens after the answer count as slots. Muon for the matrices of the blocks,
AdamW for the rest, linear warm-up, cosine decay to 2 %, gradients clipped at norm 1, and a moving average of the
weights, which is what is saved.

Data is drawn from (seed, step), so the same seed gives the same model, interrupted or not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unspool.engine.canvas import Denoiser
from unspool.engine.canvas_request import CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.noise import SEEDS
from unspool.engine.option import Options
from unspool.engine.progress import Progress, silent
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods.diffusion.fixed_blocks import FixedBlocks
from unspool.methods.diffusion.top_k import TopK
from unspool.recipes.tiny_diffusion import directory as canvas_directory
from unspool.recipes.tiny_diffusion.long_tasks import LONG
from unspool.recipes.tiny_diffusion.short_tasks import SHORT
from unspool.recipes.tiny_diffusion.tasks import END, MASK, PAD, Task, TaskSet, held_out
from unspool.training import checkpoint
from unspool.training.trainer import Job, Report, Run, Trainer

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

    from unspool.decoding.model import Model

TASK_SETS = {"short": SHORT, "long": LONG}

_MASK_ID = SHORT.ids[MASK]  # the same in every set
QUESTIONS = 50
"""Number of questions per task in ``evaluate``."""


@dataclass(frozen=True)
class CanvasTrainingOptions(Options):
    """Options of `unspool train diffusion`. Those of a built-in model are in its ``canvas.json``.

    Attributes:
        task_set: ``short`` (lists, sums, functions) or ``long`` (records, JSON, programs, squares).
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the model.
        max_steps: training steps, at least 1.
        batch_size: canvases per step, at least 1.
        muon_learning_rate, adam_learning_rate: peak values.
        warmup_steps: steps over which the learning rates rise.
        weights: relative frequency of each task; 1 for tasks that are not named.
        bf16: multiply in bfloat16; the weights stay float32. Halves a step's time on two cores with AVX512-BF16.
        save_steps: steps between saved states, a multiple of 50, so that no point of the curve is cut.
        seed: of initialisation and data.
        start: directory of a model of the same shape to continue from, with a new learning rate warm-up and,
            preferably, another seed for its data. None: from scratch.
    """

    task_set: str = "short"
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 512
    max_steps: int = 6_000
    batch_size: int = 64
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 2e-3
    warmup_steps: int = 200
    weights: tuple[tuple[str, float], ...] = (
        *(("addition", 2.0), ("json", 3.0), ("program_free", 1.5), ("latin", 2.0), ("latin_free", 1.5)),
    )
    bf16: bool = False
    save_steps: int = 500
    seed: int = 0
    start: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_steps", "batch_size", "save_steps")
        checkpoint.check_counts(self, *names)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise UnspoolError("hidden_size must be a multiple of num_attention_heads")
        if self.save_steps % checkpoint.PIECE:
            raise UnspoolError(f"save_steps must be a multiple of {checkpoint.PIECE}, not {self.save_steps}")
        if self.task_set not in TASK_SETS:
            raise UnknownNameError("task set", self.task_set, TASK_SETS)
        known = {task.name for task in SHORT.tasks + LONG.tasks}
        for name, weight in self.weights:
            if name not in known or not 0 <= weight < math.inf:
                raise UnspoolError(
                    f"weights: {name}={weight} is not a task with a weight of at least 0; tasks: {sorted(known)}"
                )
        if len(dict(self.weights)) < len(self.weights):
            raise UnspoolError(f"weights names a task twice: {self.weights}; name it once")
        if self.seed not in SEEDS:
            raise UnspoolError(f"seed must lie in 0 to 2^64 - 1, not {self.seed}")

    @property
    def tasks(self) -> TaskSet:
        return TASK_SETS[self.task_set]


def network(options: CanvasTrainingOptions) -> GPT2LMHeadModel:
    """The model at the start of training, of stock transformers parts, with attention over the whole canvas.

    Raises:
        UnspoolError: if ``start`` is not a model of this shape.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(options.tasks.vocabulary),
        n_positions=options.tasks.length,
        n_embd=options.hidden_size,
        n_layer=options.num_hidden_layers,
        n_head=options.num_attention_heads,
        n_inner=options.intermediate_size,
        activation_function="gelu_pytorch_tanh",  # GPT-2's function in one step instead of eight
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        is_causal=False,
        bos_token_id=None,
        eos_token_id=options.tasks.ids[END],
        pad_token_id=options.tasks.ids[PAD],
        attn_implementation="eager" if options.bf16 else "sdpa",  # sdpa's backward pass is slow in bfloat16 on CPU
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = GPT2LMHeadModel(config)
    if options.start is not None:
        canvas_directory.read_weights(Path(options.start), model)
    return model


def batch(options: CanvasTrainingOptions, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean ids [batch, positions] of one step and where they are masked."""
    import torch

    rng = np.random.default_rng([options.seed, step])
    tasks = options.tasks
    weights = np.array([dict(options.weights).get(task.name, 1.0) for task in tasks.tasks])
    rows = []
    for choice in rng.choice(len(weights), options.batch_size, p=weights / weights.sum()):
        example = tasks.tasks[choice].sample(rng)
        rows.append(tasks.prompt_ids(example.prompt) + tasks.canvas_ids(example.answer))
    # One random start and even spacing: every batch contains nearly clean and nearly empty canvases.
    shares = (rng.random() + np.arange(options.batch_size) / options.batch_size) % 1
    masked = rng.random((options.batch_size, tasks.length)) < shares[:, None]
    masked[:, : tasks.prompt_length] = False
    masked[~masked.any(axis=1), tasks.prompt_length] = True  # a canvas without a mask would teach nothing
    return torch.from_numpy(np.array(rows)), torch.from_numpy(masked)


def loss(model: Callable[..., Any], ids: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the masked slots."""
    import torch

    logits = model(input_ids=ids.masked_fill(masked, _MASK_ID), use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[masked], ids[masked])


def train(
    directory: Path, options: CanvasTrainingOptions | None = None, progress: Progress = silent
) -> GPT2LMHeadModel:
    """Train, or resume from ``directory``, and write a Hugging Face directory into it.

    It also gets ``canvas.json`` (mask, end token, layout, options, seconds) and ``curve.json`` (steps, losses,
    seconds). Both include the training of ``options.start``.

    Raises:
        UnspoolError: if the directory has the state of other options, or ``options.start`` is not a model of this
            shape.
    """
    import torch

    options = options or CanvasTrainingOptions()
    about = asdict(options)
    before: checkpoint.Curve = []
    if options.start is not None:
        about["start"], before = canvas_directory.history(Path(options.start))
    directory.mkdir(parents=True, exist_ok=True)
    model = network(options)
    average = network(options)
    average.load_state_dict(model.state_dict())
    optimizers = _optimizers(model, options)
    state, told = directory / checkpoint.STATE, json.dumps(asdict(options))
    first, curve = checkpoint.resume(state, told, optimizers, model=model, average=average)
    start = time.perf_counter() - (curve[-1][2] if curve else 0.0)
    model.train()
    recent: list[float] = []
    for step in range(first, options.max_steps):
        share = _schedule(step, options)
        for optimizer, peak in zip(optimizers, _peaks(options), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.bf16):
            value = loss(model, *batch(options, step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        _average(average, model, min(0.999, (step + 1) / (step + 10)))
        recent.append(float(value.detach()))
        done = step + 1
        if done % checkpoint.PIECE == 0 or done == options.max_steps:
            curve.append((done, sum(recent) / len(recent), time.perf_counter() - start))
            recent = []
        if done % options.save_steps == 0 or done == options.max_steps:
            checkpoint.save(state, told, done, curve, optimizers, model=model, average=average)
        progress("training", done, options.max_steps)
    average.eval()
    curve = checkpoint.joined(before, curve)
    canvas_directory.write(directory, average, options.tasks, {"training": about}, curve)
    return average


def _optimizers(model: GPT2LMHeadModel, options: CanvasTrainingOptions) -> list[torch.optim.Optimizer]:
    import torch

    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    held = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in held]
    return [
        torch.optim.Muon(matrices, lr=options.muon_learning_rate, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(others, lr=options.adam_learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _peaks(options: CanvasTrainingOptions) -> tuple[float, float]:
    return options.muon_learning_rate, options.adam_learning_rate


def _schedule(step: int, options: CanvasTrainingOptions) -> float:
    """Fraction of the peak learning rate: linear warm-up, then cosine decay to 2 %."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(1, options.max_steps - options.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _average(average: GPT2LMHeadModel, model: GPT2LMHeadModel, keep: float) -> None:
    import torch

    with torch.no_grad():
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - keep)


def evaluate(model: GPT2LMHeadModel, tasks: TaskSet, progress: Progress = silent) -> dict[str, float]:
    """Share of right answers by task, one token per step, to 50 questions not seen in training."""
    from unspool.backends.torch.canvas import TransformersDenoiser

    denoiser = TransformersDenoiser(model, _MASK_ID, tasks.ids[END])
    found = {}
    for done, task in enumerate(tasks.tasks):
        progress("held-out questions", done, len(tasks.tasks))
        found[task.name] = _accuracy(denoiser, tasks, task)
    progress("held-out questions", len(tasks.tasks), len(tasks.tasks))
    return found


def _accuracy(denoiser: Denoiser, tasks: TaskSet, task: Task) -> float:
    examples = held_out(task, QUESTIONS)
    requests = [
        CanvasRequest(tasks.prompt_ids(e.prompt), [None] * tasks.canvas_length, Parts(TopK(), FixedBlocks()))
        for e in examples
    ]
    answers = denoise(denoiser, requests)
    right = (task.right(e, tasks.answer_of(slots)) for e, slots in zip(examples, answers, strict=True))
    return sum(right) / len(examples)


def _prepare(job: Job, options: CanvasTrainingOptions) -> Run:
    def run(_: Model | None, progress: Progress) -> Report:
        import torch

        from unspool.recipes.tiny_diffusion import card

        torch.set_num_threads(job.threads or 2)
        accuracies = evaluate(train(job.output, options, progress), options.tasks, progress)
        card.write(job.output, options, accuracies, QUESTIONS)
        return Report(
            {"accuracy": accuracies},
            [
                f"accuracy on {QUESTIONS} held-out questions, one token a step:",
                *(f"{name:16}{value:5.2f}" for name, value in accuracies.items()),
            ],
        )

    return run


TRAINER = Trainer(
    summary="A small masked-diffusion model, from nothing, on tasks whose examples are made as needed.",
    options=CanvasTrainingOptions,
    prepare=_prepare,
    trains_for="nothing",
)
