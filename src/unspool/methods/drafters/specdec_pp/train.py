"""Training of SpecDec++'s acceptance head on the data of ``data``; neither language model is changed.

Loss: cross-entropy with soft labels ``a``, ``-(a log P(accept) + w (1 - a) log P(reject))``, divided by the sum of the
weights ``a + w (1 - a)`` of the batch. Otherwise the defaults of transformers' trainer, which the paper used: AdamW
without decay, gradients clipped at norm 1, cosine schedule. Blocks start as the identity (weights and biases 0), so
that training starts at a linear probe.

The same seed gives the same head, interrupted or not: the state is saved after each epoch. Every fifth prompt is held
out; the metrics on these prompts are part of the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.option import Options, option
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.methods.drafters.specdec_pp.data import DataOptions, Examples, generate, pair_of
from unspool.methods.drafters.specdec_pp.head import KIND, METHOD_NAME, AcceptanceHead
from unspool.storage import cache as store
from unspool.training.artifact import Artifact, file_of
from unspool.training.checkpoint import check_counts
from unspool.training.trainer import Job, Report, Run, Trainer

if TYPE_CHECKING:
    import torch

    from unspool.decoding.model import Model

_HELD_OUT = 5  # every fifth prompt
_BINS = 10


@dataclass(frozen=True)
class TrainingOptions:
    """Defaults are the paper's.

    Attributes:
        num_blocks: residual blocks of the head, at least 0.
        rejection_weight: weight of rejected tokens in the loss, above 0.
        learning_rate: peak, above 0. A few hundred prompts give few steps: 1e-3 then works better.
        num_train_epochs: passes over the data, at least 1.
        batch_size: prompts per step, at least 1.
        warmup_ratio: fraction of steps in which the learning rate rises, 0 to 1.
        seed: of the initialisation and of the order of the data.
    """

    num_blocks: int = 3
    rejection_weight: float = 6.0
    learning_rate: float = 5e-5
    num_train_epochs: int = 3
    batch_size: int = 32
    warmup_ratio: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "num_train_epochs", "batch_size")
        for name in ("rejection_weight", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UnspoolError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.num_blocks < 0 or not 0 <= self.warmup_ratio <= 1:
            raise UnspoolError("num_blocks must be at least 0, and warmup_ratio must be 0 to 1")


def train(
    target: Model,
    prompts: Sequence[str],
    directory: Path,
    data: DataOptions | None = None,
    options: TrainingOptions | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Generate the data, train a head, evaluate it on held-out prompts, and write it to ``directory``.

    Args:
        target: with its draft model.
        prompts: at least two.
        progress: called after each prompt and each step.

    Raises:
        UnspoolError: with what to do, for example if the directory contains the state of other options.
    """
    data, options = data or DataOptions(), options or TrainingOptions()
    if len(prompts) < 2:
        raise UnspoolError("training an acceptance head needs at least two prompts: one is held out")
    files = generate(target, prompts, directory / "data", data, progress)
    held_out = files[_HELD_OUT - 1 :: _HELD_OUT] or files[-1:]
    tensors = fit([file for file in files if file not in held_out], directory / "training.pt", options, progress)
    pair = pair_of(target)
    about: dict[str, Any] = {"models": [m.name for m in pair], "data": asdict(data), "training": asdict(options)}
    made = Artifact(KIND, METHOD_NAME, tuple(model.key for model in pair), tensors, about)
    loaded = [Examples.load(file) for file in held_out]
    hidden, labels = (np.concatenate(part) for part in zip(*((e.hidden, e.labels) for e in loaded), strict=True))
    about["held_out"] = measures(AcceptanceHead(made).probabilities(hidden), labels)
    made.save(file_of(directory, METHOD_NAME))
    return made


def fit(
    files: Sequence[Path],
    state: Path,
    options: TrainingOptions,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float32]]:
    """Train on these files; resumes from ``state``, which is written after each epoch.

    Returns:
        The tensors of an ``AcceptanceHead``.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = _network(Examples.load(files[0]).hidden.shape[1], options.num_blocks)
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(files) / options.batch_size)
    steps = per_epoch * options.num_train_epochs
    first = _resume(state, options, head, optimizer)
    for epoch in range(first, options.num_train_epochs):
        order = np.random.default_rng([options.seed, epoch]).permutation(len(files))
        for i in range(per_epoch):
            step = epoch * per_epoch + i
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * _schedule(step, steps, options.warmup_ratio)
            batch = [Examples.load(files[k]) for k in order[i * options.batch_size : (i + 1) * options.batch_size]]
            hidden = torch.from_numpy(np.concatenate([e.hidden for e in batch]))
            labels = torch.from_numpy(np.concatenate([e.labels for e in batch]))
            optimizer.zero_grad()
            loss(_forward(head, hidden), labels, options.rejection_weight).backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            progress("training", step + 1, steps)
        saved = {"options": asdict(options), "epochs": epoch + 1}
        saved |= {"head": head.state_dict(), "optimizer": optimizer.state_dict()}
        with store.atomic_file(state) as part:
            torch.save(saved, part)
    return {name: tensor.detach().numpy().copy() for name, tensor in head.state_dict().items()}


def _resume(state: Path, options: TrainingOptions, head: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the state of an earlier run; returns its number of epochs."""
    import torch

    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True)
    if saved["options"] != asdict(options):
        raise UnspoolError(f"{state} belongs to training with other options; delete it to train again on the same data")
    head.load_state_dict(saved["head"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["epochs"])


def _network(hidden_size: int, num_blocks: int) -> torch.nn.ModuleDict:
    from torch import nn

    blocks = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
    for parameter in blocks.parameters():
        nn.init.zeros_(parameter)
    return nn.ModuleDict({"blocks": blocks, "output": nn.Linear(hidden_size, 2)})


def _forward(head: torch.nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    """Logits [n, 2], reject and accept."""
    from torch.nn.functional import silu

    for block in head["blocks"]:
        x = x + silu(block(x))
    logits: torch.Tensor = head["output"](x)
    return logits


def loss(logits: torch.Tensor, labels: torch.Tensor, rejection_weight: float) -> torch.Tensor:
    """The weighted cross-entropy of logits [n, 2], reject and accept, with soft labels [n]."""
    reject, accept = logits.log_softmax(dim=1).unbind(dim=1)
    rejected = rejection_weight * (1 - labels)
    return -(labels * accept + rejected * reject).sum() / (labels + rejected).sum()


def _schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then cosine decay to 0."""
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def measures(predicted: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Metrics of predicted acceptance probabilities [n], given the true ones [n].

    Returns:
        ``tokens``; ``accepted``, the mean label; ``auc``, the probability that an accepted token has a higher
        prediction than a rejected one, None if all or none are accepted; ``kl``, the mean divergence of the prediction
        from the label in nats; ``reliability``, for each non-empty tenth of the range of predictions: count, mean
        prediction and mean label.
    """
    p, a = predicted.astype(np.float64), labels.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(x > 0, x * np.log(x / np.clip(y, 1e-12, None)), 0.0) for x, y in ((a, p), (1 - a, 1 - p))]
    place = np.minimum((p * _BINS).astype(int), _BINS - 1)
    bins = [place == i for i in range(_BINS)]
    return {
        "tokens": len(p),
        "accepted": float(a.mean()),
        "auc": auc(p, a),
        "kl": float(np.mean(parts[0] + parts[1])),
        "reliability": [[int(b.sum()), float(p[b].mean()), float(a[b].mean())] for b in bins if b.any()],
    }


def auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve where each token counts as accepted with weight ``a`` and as rejected with ``1 - a``."""
    values, place = np.unique(scores, return_inverse=True)
    accepted = np.bincount(place, labels, len(values))
    rejected = np.bincount(place, 1 - labels, len(values))
    below = np.cumsum(rejected) - rejected
    pairs = accepted.sum() * rejected.sum()
    return float((accepted * (below + rejected / 2)).sum() / pairs) if pairs else None


@dataclass(frozen=True)
class HeadOptions(Options):
    """The options of `unspool train specdec_pp`. Defaults are the paper's.

    Attributes:
        prompts: JSONL with `prompt`, or `turns` as in Spec-Bench; or a text file with one prompt per line. The paper
            used 40,000; every fifth one is held out.
        limit: use only the first prompts.
        max_new_tokens: maximum tokens of each continuation.
        temperature: of the head's later use; 0 is greedy decoding.
        mixing: probability that the draft model reads the target's token and not its own.
        num_blocks: residual blocks of the head.
        rejection_weight: weight of rejected tokens in the loss.
        learning_rate: peak. A few hundred prompts give few steps: 1e-3 then works better.
        num_train_epochs: passes over the data.
        batch_size: prompts per step.
        warmup_ratio: fraction of steps in which the learning rate rises.
        seed: the same seed gives the same head.
    """

    prompts: str | None = None
    limit: int | None = option(None, least=1)
    max_new_tokens: int = 512
    temperature: float = 1.0
    mixing: float = 0.15
    num_blocks: int = 3
    rejection_weight: float = 6.0
    learning_rate: float = 5e-5
    num_train_epochs: int = 3
    batch_size: int = 32
    warmup_ratio: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.data and self.training  # each checks its own ranges

    @property
    def data(self) -> DataOptions:
        return DataOptions(self.max_new_tokens, self.temperature, self.mixing, self.seed)

    @property
    def training(self) -> TrainingOptions:
        return TrainingOptions(
            self.num_blocks,
            self.rejection_weight,
            self.learning_rate,
            self.num_train_epochs,
            self.batch_size,
            self.warmup_ratio,
            self.seed,
        )


def _prepare(job: Job, options: HeadOptions) -> Run:
    from unspool.suites.prompts import read_prompts

    if options.prompts is None:
        raise UnspoolError(f"{METHOD_NAME} is trained on prompts; give a file of them: {METHOD_NAME}:prompts=FILE")
    texts = [prompt.text for prompt in read_prompts(Path(options.prompts))[: options.limit]]
    if len(texts) < 2:
        raise UnspoolError(f"{options.prompts} contains one prompt; a head needs at least two: one is held out")

    def run(model: Model | None, progress: Progress) -> Report:
        assert model is not None  # see Trainer.trains_for
        figures = train(model, texts, job.output, options.data, options.training, progress).trained_with
        held_out = figures["held_out"]
        auc = "–" if held_out["auc"] is None else f"{held_out['auc']:.3f}"
        return Report(
            figures,
            [
                f"{job.output}: AUC {auc}, KL {held_out['kl']:.3f} on {held_out['tokens']} held-out tokens",
                "predicted  accepted  tokens",
                *(
                    f"{predicted:9.2f}  {accepted:8.2f}  {tokens:6}"
                    for tokens, predicted, accepted in held_out["reliability"]
                ),
            ],
        )

    return run


TRAINER = Trainer(
    summary="The head that decides when a draft ends, for one pair of models and one temperature.",
    options=HeadOptions,
    prepare=_prepare,
    trains_for="pair",
    example="prompts=prompts.jsonl",
)
