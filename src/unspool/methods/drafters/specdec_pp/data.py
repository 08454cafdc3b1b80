"""Training data of the acceptance head of SpecDec++: drafted tokens and their probability of acceptance.

For each prompt the target samples a continuation X. At each position the draft model, reading X, draws one token Y. The
label is the probability ``min(1, p(Y) / q(Y))`` that the lossless rule accepts it; at temperature 0 both are argmaxes
and the label is 0 or 1. During decoding, the draft model reads its own tokens and not the target's. So the head learns
from hidden states over a mixture Z, in which a position has Y, or with a small probability X; only states whose own
token is Y count.

One file per prompt, so that an interrupted run resumes where it ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel, Logits, Scores
from unspool.engine.noise import SEEDS
from unspool.engine.numeric import softmax
from unspool.engine.options import GenerationOptions
from unspool.engine.progress import Progress, silent
from unspool.engine.taps import OUTPUT, Taps, check
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.errors import UnspoolError, UnsupportedError
from unspool.storage import cache as store
from unspool.storage.text_files import parse_json, read_text

if TYPE_CHECKING:
    from unspool.decoding.loaded import LoadedModel
    from unspool.decoding.model import Model

_BLOCK = 32  # positions of a pass; their logits are in memory together


@dataclass(frozen=True)
class DataOptions:
    """Defaults are the paper's.

    Attributes:
        max_new_tokens: maximum tokens of a continuation, at least 1.
        temperature: of sampling, and of the head's later use; 0 for greedy decoding.
        mixing: probability that the draft model reads the target's token and not its own, 0 up to but not 1.
        seed: of all draws.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    mixing: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        GenerationOptions(max_new_tokens=self.max_new_tokens, temperature=self.temperature)
        if self.seed not in SEEDS:
            raise UnspoolError(f"seed must lie in 0 to 2^64 - 1, not {self.seed}")
        if not 0 <= self.mixing < 1:
            raise UnspoolError(f"mixing must be at least 0 and below 1, not {self.mixing}")


@dataclass(frozen=True)
class Examples:
    """Drafted tokens of one prompt.

    Attributes:
        hidden: float32 [n, hidden size], the draft model's last hidden states with these tokens as input.
        labels: float32 [n], the probability that the target accepts them.
    """

    hidden: NDArray[np.float32]
    labels: NDArray[np.float32]

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Read one of the files that ``generate`` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))


def pair_of(target: Model) -> list[LoadedModel]:
    """The target and its draft model.

    Raises:
        UnsupportedError: if the draft model is missing or has no hidden states.
    """
    draft = target.assistant
    if draft is None:
        raise UnsupportedError(
            "an acceptance head belongs to a pair of models; give the draft model with --assistant-model"
        )
    check(draft.language_model, Taps(), "an acceptance head")
    return [target, draft]


def generate(
    target: Model,
    prompts: Sequence[str],
    directory: Path,
    options: DataOptions | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write one file per prompt into ``directory``; existing files are kept.

    Args:
        target: with its draft model.
        progress: called after each prompt.

    Returns:
        The files in the order of the prompts.

    Raises:
        UnspoolError: if the directory contains data of other models, prompts or options.
    """
    options = options or DataOptions()
    made_from = {
        "models": [model.key for model in pair_of(target)],
        "options": asdict(options),
        "prompts": hashlib.sha256("\0".join(prompts).encode()).hexdigest(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / "data.json"
    if record.exists() and _told(record) != made_from:
        raise UnspoolError(
            f"{directory} contains data of other models, prompts or options; delete it or use another directory"
        )
    with store.atomic_file(record) as part:
        part.write_text(json.dumps(made_from, indent=1), "utf-8")
    files = []
    for i, prompt in enumerate(prompts):
        files.append(directory / f"{i:06}.safetensors")
        if not files[-1].exists():
            _write(files[-1], examples(target, prompt, i, options))
        progress("data", i + 1, len(prompts))
    return files


def _told(record: Path) -> Any:
    try:
        return parse_json(read_text(record))
    except ValueError as error:
        raise UnspoolError(f"{record} is damaged ({error}); delete the directory, or use another one") from error


def examples(target: Model, prompt: str, index: int, options: DataOptions) -> Examples:
    """The examples of one prompt; ``index`` selects its random stream."""
    assert target.assistant is not None  # see pair_of
    draft = target.assistant.language_model
    ids = target.encode(prompt)
    room = min(target.language_model.max_length, draft.max_length) - len(ids)
    if room < 1:
        raise UnspoolError(f"prompt {index + 1} has {len(ids)} tokens, too many for the models; shorten or remove it")
    rng = np.random.default_rng([options.seed, index])
    result = target.generate(
        ids,
        method="plain",
        temperature=options.temperature,
        seed=int(rng.integers(2**63)),
        max_new_tokens=min(options.max_new_tokens, room),
    )
    read = np.array(result.token_ids)
    drawn, labels = _drafted(target, draft, [*ids, *result.token_ids], len(ids), options.temperature, rng)
    own = rng.random(len(read)) >= options.mixing
    mixture = np.where(own, drawn, read)
    states = [
        scores.hidden[OUTPUT]
        for scores in _scored(draft, [*ids, *mixture.tolist()], len(ids), Taps())
        if scores.hidden is not None
    ]
    return Examples(np.concatenate(states)[own].astype(np.float32), labels[own])


def _drafted(
    target: Model, draft: LanguageModel, text: list[int], start: int, temperature: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """One drafted token for each position of ``text`` from ``start`` on, and its probability of acceptance."""
    drawn, labels = [], []
    # The logits at one position decide the token at the next.
    passes = (_scored(model, text[:-1], start - 1) for model in (target.language_model, draft))
    for theirs, ours in zip(*passes, strict=True):
        for p_row, q_row in zip(theirs.logits, ours.logits, strict=True):
            token, label = _draw(p_row, q_row[: len(p_row)], temperature, rng)
            drawn.append(token)
            labels.append(label)
    return np.array(drawn), np.array(labels, dtype=np.float32)


def _draw(p_row: Logits, q_row: Logits, temperature: float, rng: np.random.Generator) -> tuple[int, float]:
    if temperature == 0:
        token = int(q_row.argmax())
        return token, float(token == int(p_row.argmax()))
    p, q = softmax(p_row / temperature), softmax(q_row / temperature)
    cumulated = np.cumsum(q)
    token = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return token, min(1.0, float(p[token] / q[token]))


def _scored(model: LanguageModel, tokens: list[int], start: int, taps: Taps | None = None) -> Iterator[Scores]:
    """Scores of the tokens from ``start`` on, in blocks: copies, since another thread's pass may come between."""
    session = model.open(taps)
    while (at := session.length) < len(tokens):
        end = min(start, at + _BLOCK) if at < start else at + _BLOCK
        block = TokenTree.chain(tokens[at:end])
        with turn(model):
            scores = session.score(block, rows=() if at < start else None)
            hidden = None if scores.hidden is None else {layer: part.copy() for layer, part in scores.hidden.items()}
            scores = replace(scores, logits=scores.logits.copy(), hidden=hidden)
            session.commit(range(len(block)))
        if at >= start:
            yield scores
    session.close()


def _write(path: Path, made: Examples) -> None:
    from safetensors.numpy import save_file

    with store.atomic_file(path) as part:
        save_file(vars(made), part)
