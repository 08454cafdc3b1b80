"""Random numbers that depend only on (seed, absolute position).

Plain sampling is ``argmax(log p + g)``, where the Gumbel noise ``g`` belongs to the position. Every method that draws
from the target this way yields, token for token, the output of plain sampling with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SEEDS = range(1 << 64)
_MASK = (1 << 64) - 1
# More streams of a position, independent of its noise: the acceptance rule's draws and the drafter's.
_ACCEPT = 1 << 63
_DRAFT = 1 << 62
# A canvas draws several times for one position; positions of texts stay far below this.
_STEP_SHIFT = 32


def _bits(seed: int, stream: int, n: int) -> NDArray[np.uint64]:
    # Philox is counter based; numpy guarantees the raw stream of a bit generator across versions.
    key = np.array([seed & _MASK, stream & _MASK], dtype=np.uint64)
    raw: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(n)
    return raw


def row_seed(seed: int, row: int) -> int:
    """The seed of a row of a batch: row 0 has the batch's own, other rows one derived from it and the row number."""
    if row == 0:
        return seed
    (derived,) = np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)
    return int(derived)


def exponential(seed: int, position: int, vocab_size: int) -> NDArray[np.float64]:
    """Standard exponential noise [vocabulary] of one position; ``-log`` of it is standard Gumbel noise."""
    return _exponential(_bits(seed, position, vocab_size))


def _exponential(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    # The top 53 bits plus a half: uniform in the open interval (0, 1), so that the logarithm is finite.
    noise: NDArray[np.float64] = -np.log(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    return noise


def gumbel(seed: int, position: int, vocab_size: int) -> NDArray[np.float64]:
    """Standard Gumbel noise [vocabulary] of one position."""
    noise: NDArray[np.float64] = -np.log(exponential(seed, position, vocab_size))
    return noise


def canvas_gumbel(seed: int, position: int, step: int, vocab_size: int) -> NDArray[np.float64]:
    """Standard Gumbel noise [vocabulary] of one canvas position in one pass."""
    return gumbel(seed, position | (step + 1) << _STEP_SHIFT, vocab_size)


def canvas_generator(seed: int, step: int) -> np.random.Generator:
    """Generator for the choice of positions in one pass over a canvas."""
    return _generator(seed, step | _ACCEPT)


def gumbel_of(seed: int, position: int, ids: Sequence[int]) -> NDArray[np.float64]:
    """``gumbel(seed, position, ...)[ids]`` without drawing the noise of the other tokens."""
    generator = np.random.Philox(key=np.array([seed & _MASK, position & _MASK], dtype=np.uint64))
    blocks: dict[int, NDArray[np.uint64]] = {}
    at = 0
    for block in sorted({token // 4 for token in ids}):  # the counter gives four numbers a step
        generator.advance(block - at)
        blocks[block] = generator.random_raw(4)
        at = block + 1
    raw = np.array([blocks[token // 4][token % 4] for token in ids], dtype=np.uint64)
    noise: NDArray[np.float64] = -np.log(_exponential(raw))
    return noise


def draw(log_weights: NDArray[np.float64], seed: int, position: int, vocab_size: int, ids: NDArray[np.int64]) -> int:
    """The token that plain sampling takes at ``position``.

    Args:
        log_weights: [k] unnormalised log probabilities of the tokens that survived truncation.
        ids: [k] those tokens, ascending; equal scores go to the lowest id.
    """
    noise = exponential(seed, position, vocab_size)
    if len(ids) < vocab_size:
        noise = noise[ids]
    return int(ids[np.argmax(log_weights - np.log(noise))])


def rule_generator(seed: int, position: int) -> np.random.Generator:
    """Generator for the tests of an acceptance rule in the round that starts at ``position``."""
    return _generator(seed, position | _ACCEPT)


def draft_generator(seed: int, position: int) -> np.random.Generator:
    """Generator for the draws of a drafter in the round that starts at ``position``.

    No two rounds start at the same position, so no number is used twice.
    """
    return _generator(seed, position | _DRAFT)


def _generator(seed: int, stream: int) -> np.random.Generator:
    key = np.array([seed & _MASK, stream & _MASK], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
