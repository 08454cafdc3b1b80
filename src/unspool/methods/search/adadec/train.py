"""Learns AdaDec's tau: the entropy above which a model's top-1 token is probably wrong.

Reference solutions are scored once. Each of their tokens gives the entropy H of the model's prediction and whether its
top-1 token is that token (y = 1). A logistic regression P(y = 1) = sigmoid(b + w H) is fitted on a balanced part, the
cut theta in 0.01..0.99 with the best accuracy is chosen on the rest, and tau is the H at which P is theta.

Choices: tokens, not problems, are split 80/20; among equally good cuts the lowest one is taken.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel, Session
from unspool.engine.option import Options, option
from unspool.engine.progress import Progress, silent
from unspool.engine.search import Distribution
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.engine.typed import ONE_IS_A_LIST
from unspool.errors import UnspoolError
from unspool.models import identity
from unspool.training.artifact import Artifact, file_of
from unspool.training.trainer import Job, Report, Run, Trainer

if TYPE_CHECKING:
    from unspool.decoding.model import Model

SEED = 42
_BLOCK = 64
_LEAST = 20  # minimum number of right and of wrong tokens for the regression


@dataclass(frozen=True)
class Threshold:
    """What was learned for one model.

    Attributes:
        threshold: tau, in nats.
        theta: the cut of the probability, 0.01 to 0.99.
        intercept, slope: b and w of the regression.
        accuracy: of "P >= theta" on the held-out tokens.
        pause_rate: share of all tokens whose entropy is tau or more.
        right, right_paused: share of tokens that are the model's top-1, below tau and from tau on.
        in_top_3_paused: share of tokens from tau on that are in its top 3.
        tokens, problems: numbers scored.
    """

    threshold: float
    theta: float
    intercept: float
    slope: float
    accuracy: float
    pause_rate: float
    right: float
    right_paused: float
    in_top_3_paused: float
    tokens: int
    problems: int

    def artifact(self, model: Model) -> Artifact:
        """The threshold as an artifact, for the model with its backend and weights."""
        key = identity.loaded(model.key, model.language_model.settings)
        figures = {"models": [model.name], **asdict(self)}
        return Artifact("threshold", "adadec", (key,), {"threshold": np.array(self.threshold)}, figures)


def measure(
    model: Model,
    problems: Sequence[tuple[str, str]],
    max_tokens: int = 1024,
    progress: Progress = silent,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Entropy in nats and rank (0: the model's first choice) [tokens] of every token of the solutions.

    Args:
        problems: (prompt, solution).
        max_tokens: of prompt and solution together; longer ones are cut.
    """
    entropies: list[float] = []
    ranks: list[int] = []
    limit = min(max_tokens, model.language_model.max_length)
    for done, (prompt, solution) in enumerate(problems, 1):
        ids = model.tokenizer.encode(prompt)
        first = len(ids)
        ids += model.tokenizer.encode(solution, add_special_tokens=False)
        for entropy, rank in teacher_forced(model.language_model, ids[:limit], first):
            entropies.append(entropy)
            ranks.append(rank)
        progress("solutions", done, len(problems))
    return np.array(entropies), np.array(ranks, dtype=np.int64)


def teacher_forced(model: LanguageModel, ids: Sequence[int], first: int) -> list[tuple[float, int]]:
    """Entropy in nats and rank of each token from position ``first``, at least 1, given those before it."""
    found: list[tuple[float, int]] = []
    session: Session = model.open()
    at = 0
    while at < len(ids) - 1:
        block = ids[at : min(len(ids) - 1, at + min(_BLOCK, session.max_depth))]
        rows = [i for i in range(len(block)) if at + i + 1 >= first]
        with turn(model):
            logits = session.score(TokenTree.chain(block), rows).logits
            for i, row in zip(rows, logits, strict=True):
                value = row[ids[at + i + 1]]
                found.append((Distribution(row).entropy, int(np.count_nonzero(row > value))))
            session.commit(range(len(block)))
        at += len(block)
    session.close()
    return found


def learn(entropies: NDArray[np.float64], ranks: NDArray[np.int64], problems: int) -> Threshold:
    """Fit tau.

    Raises:
        UnspoolError: if there are too few tokens, or the model is not more certain where it is right.
    """
    y = ranks == 0
    order = np.random.default_rng(SEED).permutation(len(y))
    train, held_out = np.split(order, [int(0.8 * len(y))])
    wrong, right = train[~y[train]], train[y[train]]
    if min(len(wrong), len(right)) < _LEAST or not len(held_out):
        raise UnspoolError(
            f"{len(right)} tokens that the model predicts and {len(wrong)} that it does not are too few; give more "
            "files"
        )
    rng = np.random.default_rng(SEED)
    size = min(len(wrong), len(right))
    balanced = np.concatenate([rng.permutation(wrong)[:size], rng.permutation(right)[:size]])
    intercept, slope = _fit(entropies[balanced], y[balanced])
    if not slope < 0:
        raise UnspoolError("on these files the model is not more certain where it is right; give other files")
    p = 1 / (1 + np.exp(-(intercept + slope * entropies[held_out])))
    cuts = np.arange(1, 100) / 100
    accuracies = [float(np.mean((p >= cut) == y[held_out])) for cut in cuts]
    best = int(np.argmax(accuracies))
    theta = float(cuts[best])
    tau = (math.log(theta / (1 - theta)) - intercept) / slope
    paused = entropies >= tau
    return Threshold(
        threshold=tau,
        theta=theta,
        intercept=intercept,
        slope=slope,
        accuracy=accuracies[best],
        pause_rate=float(paused.mean()),
        right=_share(y[~paused]),
        right_paused=_share(y[paused]),
        in_top_3_paused=_share(ranks[paused] < 3),
        tokens=len(y),
        problems=problems,
    )


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _fit(x: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float]:
    """Maximum likelihood of P(y) = sigmoid(b + w x) by Newton's method."""
    design = np.stack([np.ones_like(x), x])
    beta = np.zeros(2)
    for _ in range(100):
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-(beta @ design)))
        hessian = (design * (p * (1 - p))) @ design.T
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), design @ (y - p))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            return float(beta[0]), float(beta[1])
    raise UnspoolError("the entropies of right and wrong tokens do not overlap; give more files")


@dataclass(frozen=True)
class ThresholdOptions(Options):
    """The options of `unspool train adadec`.

    Attributes:
        files: Python files, or directories of them; empty: the installed packages.
        limit: maximum number of functions, drawn at random.
        max_tokens: maximum tokens of a function; the rest of it is cut.
        seed: the same seed draws the same functions.
    """

    files: Sequence[str] = field(default=(), metadata=ONE_IS_A_LIST)
    limit: int = option(400, least=1)
    max_tokens: int = option(1024, least=2)
    seed: int = 0


def _prepare(job: Job, options: ThresholdOptions) -> Run:
    from unspool.methods.search.adadec.data import problems

    files = [Path(file) for file in options.files] or [Path(sysconfig.get_path("purelib"))]
    chosen = problems(files, options.limit, options.seed)

    def run(model: Model | None, progress: Progress) -> Report:
        assert model is not None  # see Trainer.trains_for
        learned = learn(*measure(model, chosen, options.max_tokens, progress), len(chosen))
        file = file_of(job.output, "adadec")
        learned.artifact(model).save(file)
        return Report(
            asdict(learned),
            [
                f"{file}: threshold {learned.threshold:.3f} nats (theta {learned.theta:.2f}, accuracy "
                f"{learned.accuracy:.3f}) from {learned.tokens} tokens of {learned.problems} functions",
                f"pauses at {learned.pause_rate:.1%} of the tokens. Top-1 correct: {learned.right:.0%} below, "
                f"{learned.right_paused:.0%} at pauses, where the correct token is in the top 3 at "
                f"{learned.in_top_3_paused:.0%}",
            ],
        )

    return run


TRAINER = Trainer(
    summary="The entropy above which a model's top-1 token is probably wrong, for one model and its weights.",
    options=ThresholdOptions,
    prepare=_prepare,
)
