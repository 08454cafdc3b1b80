"""Shapers against transformers' processors on rows that are hard: ties, huge and tiny scales, tokens that cannot
follow, one survivor, all sizes of vocabularies, options at their ends.

In float64 both keep the same tokens. Of equal ones either may keep any, so it is their logits that are compared. In
float32 sums are rounded in another order: there what is kept lies between what float64 keeps at thresholds a little
lower and a little higher. ``typical_p`` orders tokens by how far they are from the entropy, where almost equal ones
change places by rounding alone: each token that is kept or not against float64 must lie within the rounding of its own
distance from the edge.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from tests.fuzz.reference import Processors
from unspool.engine.options import GenerationOptions
from unspool.methods.shaping._built_in import build

QUICK, NIGHTLY = 200, 2000
SIZES = (8, 8, 9, 50, 50, 1000, 1000, 5000, 49152, 151936)


def row_of(rng: Random, size: int) -> np.ndarray:
    """Logits [size], float64."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    scale = rng.choice([1e-3, 0.1, 1.0, 4.0, 30.0, 300.0])
    row = numbers.normal(0, scale, size)
    kind = rng.random()
    if kind < 0.25:
        row = np.round(row / (scale / 4)) * (scale / 4)
    elif kind < 0.35:
        row = row.astype(np.float16).astype(np.float64)
    elif kind < 0.4:
        row[:] = 2.5
    elif kind < 0.45:
        survivor = rng.randrange(size)
        row[:] = -np.inf
        row[survivor] = 1.0
    elif kind < 0.55:
        row[numbers.permutation(size)[: size * 3 // 4]] = -np.inf
    return row


def options_of(rng: Random, size: int) -> dict[str, Any]:
    """Thresholds of no round values, so that no sum of equal probabilities lies right at them."""

    def ids() -> list[int]:
        return [rng.randrange(min(size, 40)) for _ in range(rng.randint(1, 3))]

    top_p = rng.choice([1e-8, 1e-3, rng.uniform(0.05, 0.999), rng.uniform(0.8, 0.999), 0.999999])
    bias = {tuple(ids()): rng.choice([-3.0, 0.5, 7.0, -np.inf]) for _ in range(rng.randint(1, 5))}
    possible: list[tuple[float, str, Any]] = [
        (0.35, "top_k", rng.choice([1, 2, 3, 10, 50, size - 1, size, size + 5])),
        (0.45, "top_p", top_p),
        (0.3, "min_p", rng.choice([1e-4, rng.uniform(0.01, 0.9), 0.9991])),
        (0.3, "typical_p", rng.choice([1e-4, rng.uniform(0.1, 0.98), 0.9999])),
        (0.3, "repetition_penalty", rng.choice([0.1, 0.9, 1.1, 2.0, 50.0])),
        (0.2, "no_repeat_ngram_size", rng.choice([1, 2, 3, 5])),
        (0.2, "bad_words_ids", [ids() for _ in range(rng.randint(1, 5))]),
        (0.2, "sequence_bias", bias),
    ]
    chosen = {name: value for chance, name, value in possible if rng.random() < chance}
    return {"temperature": rng.choice([1e-6, 1e-3, 0.1, 0.7, 1.0, 1.7, 5.0, 100.0]), **chosen}


def ours(options: dict[str, Any], eos: int, tokens: np.ndarray, row: np.ndarray) -> np.ndarray:
    for shaper in build(GenerationOptions(eos_token_id=[eos], **options)):
        if np.isneginf(row).all():  # the engine refuses to go on from there
            break
        row = shaper(tokens, row)
    return row


def theirs(options: dict[str, Any], eos: int, tokens: np.ndarray, row: np.ndarray) -> np.ndarray:
    return Processors(options, 1, [eos])(tokens.tolist(), row)


def differs(seed: int) -> str:
    """What of one row differs; empty if nothing does."""
    rng = Random(seed)
    size = rng.choice(SIZES)
    row, options = row_of(rng, size), options_of(rng, size)
    tokens = np.array([rng.randrange(min(size, 40)) for _ in range(rng.randint(1, 60))])
    eos = rng.randrange(size)
    with np.errstate(all="ignore"):
        mine, other = ours(options, eos, tokens, row), theirs(options, eos, tokens, row)
    if np.isneginf(mine).all() or np.isneginf(other).all():
        return ""  # the engine refuses to draw from that
    kept, wanted = mine > -np.inf, other > -np.inf
    same = kept.sum() == wanted.sum()
    if not same or not np.allclose(np.sort(mine[kept]), np.sort(other[wanted]), rtol=1e-9, atol=1e-9):
        return f"row {seed} of {size}: {kept.sum()} and {wanted.sum()} tokens are kept under {options}"
    both = kept & wanted
    if not np.allclose(mine[both], other[both], rtol=1e-9, atol=1e-9):
        return f"row {seed} of {size}: values are {np.abs(mine - other)[both].max()} apart under {options}"
    return ""


def rounds_wrongly(seed: int) -> str:
    """Whether a truncation of a float32 row keeps what no rounding explains; empty if not."""
    rng = Random(seed)
    size = rng.choice(SIZES)
    row = row_of(rng, size).astype(np.float32)
    name = rng.choice(["top_p", "min_p"])
    threshold = rng.uniform(0.02, 0.98)
    temperature = rng.choice([0.1, 0.7, 1.0, 1.7, 5.0])
    tokens = np.array([1])
    counts = []
    for value in (threshold - 1e-4, threshold + 1e-4):
        shaped = theirs({"temperature": temperature, name: value}, 0, tokens, row.astype(np.float64))
        counts.append(int((shaped > -np.inf).sum()))
    kept = int((ours({"temperature": temperature, name: threshold}, 0, tokens, row) > -np.inf).sum())
    if min(counts) <= kept <= max(counts):
        return ""
    return f"row {seed} of {size}: {kept} tokens are kept, not {counts}, under {name}={threshold}, {temperature}"


def typical(row: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens ``typical_p`` must keep of a float32 row, and which it may: [size] each.

    Distances are exact but for what float32 leaves of them: half a digit of a log-probability, of the shift and of the
    normaliser that it is made of; and of the entropy, for each token, what its logarithm and its exponential lose and
    one digit for each level of the sum.
    """
    digit = float(np.finfo(np.float32).eps)
    ids = np.flatnonzero(row > -np.inf)
    shifted = row[ids].astype(np.float64) - float(row.max())
    normaliser = np.log(np.exp(shifted).sum())
    logprobs = shifted - normaliser
    chances = np.exp(logprobs)
    entropy = -(chances * logprobs).sum()
    distances = np.abs(-logprobs - entropy)
    own = digit / 2 * (np.abs(shifted) + normaliser + np.abs(logprobs))
    levels = np.log2(len(ids)) + 9  # numpy adds by pairs, at the lowest level 8 rows of at most 16 terms
    of_entropy = (chances * own * (1 + np.abs(logprobs))).sum() + digit * levels * entropy
    rounding = own + of_entropy + digit * (entropy + distances)

    def edge(bounds: np.ndarray, mass: float) -> float:
        """The distance up to which a mass is kept."""
        order = np.argsort(bounds)
        last = min(int((np.cumsum(chances[order]) < mass).sum()), len(ids) - 1)
        return float(bounds[order][last])

    lowest = edge(distances - rounding, threshold - 4 * digit)
    highest = edge(distances + rounding, threshold + 4 * digit)
    must, may = np.zeros(len(row), bool), np.zeros(len(row), bool)
    must[ids], may[ids] = distances + rounding <= lowest, distances - rounding <= highest
    return must, may


def is_untypical(seed: int) -> str:
    """Whether ``typical_p`` keeps or drops a token of a float32 row that no rounding explains; empty if not."""
    rng = Random(seed)
    size = rng.choice(SIZES)
    row = row_of(rng, size).astype(np.float32)
    threshold, temperature = rng.uniform(0.02, 0.98), rng.choice([0.1, 0.7, 1.0, 1.7, 5.0])
    tokens = np.array([1])
    cooled = ours({"temperature": temperature}, 0, tokens, row)
    must, may = typical(cooled, threshold)
    kept = ours({"temperature": temperature, "typical_p": threshold}, 0, tokens, row) > -np.inf
    if (must <= kept).all() and (kept <= may).all():
        return ""
    wrong = np.flatnonzero((must & ~kept) | (kept & ~may))
    return f"row {seed} of {size}: {len(wrong)} tokens, first {wrong[0]}, under {threshold}, {temperature}"


def fuzz(seeds: range) -> None:
    found = [problem for seed in seeds for check in (differs, rounds_wrongly, is_untypical) if (problem := check(seed))]
    assert not found, f"{len(found)} of {len(seeds)} differ:\n" + "\n".join(found[:5])


def test_some_rows() -> None:
    fuzz(range(QUICK))


@pytest.mark.nightly
def test_many_rows() -> None:
    fuzz(range(QUICK, QUICK + NIGHTLY))
