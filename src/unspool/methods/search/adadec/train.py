"""Learns AdaDec's tau: from which entropy on a model's first choice is probably not the right token.

Reference solutions are scored once. For each of their tokens the entropy H of the model's prediction and whether its
first choice is that token (y = 1) are noted; a logistic regression P(y = 1) = sigmoid(b + w H) is fitted on a balanced
part, the cut theta in 0.01..0.99 with the best accuracy is chosen on the rest, and tau is the H at which P is theta.

Choices: tokens, not problems, are split 80/20; among equally good cuts the lowest one is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel, Session
from unspool.engine.progress import Progress, silent
from unspool.engine.search import Distribution
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.errors import UnspoolError
from unspool.storage.cache import atomic_file
from unspool.storage.text_files import parse_json, read_text

if TYPE_CHECKING:
    from unspool.decoding.loaded import LoadedModel
    from unspool.decoding.model import Model

SEED = 42
_BLOCK = 64
_TRAIN = "learn it with `unspool train adadec-threshold`"
_LEAST = 20  # right and wrong tokens, each, that a regression needs


@dataclass(frozen=True)
class Threshold:
    """What was learned for one model.

    Attributes:
        threshold: tau, in nats.
        theta: the cut of the probability, 0.01 to 0.99.
        intercept, slope: b and w of the regression.
        accuracy: of "P >= theta" on the tokens that were held out.
        pause_rate: share of all tokens whose entropy is tau or more.
        right, right_paused: share of tokens that are the model's first choice, below tau and from tau on.
        in_top_3_paused: share of tokens from tau on that are among its first three.
        tokens, problems: that were scored.
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


def key_of(model: LoadedModel) -> str:
    """What a threshold belongs to: the model file, and the engine and weights that it runs with."""
    settings = model.language_model.settings
    return f"{model.key} {settings['backend']} {settings['weights']}"


def measure(
    model: Model,
    problems: Sequence[tuple[str, str]],
    max_tokens: int = 1024,
    progress: Progress = silent,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Entropy in nats and rank (0: the model's first choice) [tokens] of every token of the solutions.

    Args:
        problems: (prompt, solution).
        max_tokens: of prompt and solution together; what is longer is cut.
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
        block = ids[at : min(len(ids) - 1, at + min(_BLOCK, session.room))]
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
        UnspoolError: if there are too few tokens, or the model is not surer where it is right.
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
        raise UnspoolError("on these files the model is not surer where it is right; give other files")
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


def save(path: Path, key: str, name: str, threshold: Threshold) -> None:
    """Add or replace one model's threshold in a JSON file; those of other models stay.

    Args:
        key: see ``key_of``.
        name: of the model, for people.

    Raises:
        UnspoolError: if the file holds something else or cannot be written; it is then as it was.
    """
    table = read(path) if path.exists() else {}
    table[key] = {"model": name, **asdict(threshold)}
    with atomic_file(path) as part:
        part.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def load(path: Path, key: str) -> Threshold:
    """The threshold of a model.

    Raises:
        UnspoolError: if the file cannot be read or has none for it.
    """
    entry = read(path).get(key)
    if entry is None:
        raise UnspoolError(f"{path} holds no threshold for this model and its weights; {_TRAIN}")
    try:
        return Threshold(**{name: entry[name] for name in Threshold.__dataclass_fields__})
    except (KeyError, TypeError) as error:
        raise UnspoolError(f"{path} is not a file of thresholds; {_TRAIN}") from error


def read(path: Path) -> dict[str, Any]:
    """The entries of a file of thresholds, by ``key_of``.

    Raises:
        UnspoolError: if it cannot be read or holds something else.
    """
    try:
        table = parse_json(read_text(path))
    except ValueError as error:
        raise UnspoolError(f"{path} is not a file of thresholds: {error}; {_TRAIN}") from error
    if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
        raise UnspoolError(f"{path} is not a file of thresholds; {_TRAIN}")
    return table
