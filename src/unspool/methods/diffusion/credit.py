"""CreditDecoding: Accelerating Parallel Decoding in Diffusion LLMs with Trace Credit (2025).

The right token is usually the most likely one several steps before it is confident enough to be committed. Each slot
keeps a decaying *credit* for the tokens that were its argmax. The logarithm of the credit is added to the logits before
the unmask policy reads them. Credit is kept within a block. Guarantee: lossy; ``alpha`` = 0 changes nothing.

Credit is kept for every token of the vocabulary (``dense``) or for the ``kept`` tokens of a slot with the most credit
(``sparse``, for vocabularies of 10^5). With as many as a block has steps the two are the same. ``parameter_free`` is
the form of the paper's later version, as its notes describe it: gamma is 1, alpha and beta are the share of the block's
slots that are no longer masked.

Choices: evidence is the argmax of the raw logits, without noise, even with a temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.engine.canvas import BlockState
from unspool.engine.method import TRANSFORM, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import THRESHOLDS, at


@dataclass(frozen=True)
class CreditOptions(Options):
    """Defaults are those of the authors' code.

    Attributes:
        alpha: weight of credit in the logits, at least 0.
        beta: share of credit that remains after a step, 0 to 1.
        gamma: power of the probability that becomes credit, above 0; below 1 it raises weak evidence.
        kept: tokens of each slot that keep credit, at least 1; None: the whole vocabulary.
        parameter_free: derives alpha, beta and gamma from the share of unmasked slots.
    """

    alpha: float = option(0.7, least=0)
    beta: float = option(0.8, least=0, most=1)
    gamma: float = option(0.2, above=0)
    kept: int | None = option(None, least=1)
    parameter_free: bool = False


class Credit:
    """Adds the logarithm of credit to the logits of a block."""

    def __init__(self, options: CreditOptions | None = None) -> None:
        self.options = options or CreditOptions()
        self._credit: list[dict[int, float]] = []  # of each slot of the block, by token

    def start_block(self, view: BlockState) -> None:
        self._credit = [{} for _ in view.masked]

    def __call__(self, view: BlockState) -> NDArray[np.float64]:
        alpha, beta, gamma = self._parameters(view)
        logits: NDArray[np.float64] = view.logits.copy()
        likeliest = view.logits.argmax(axis=1)
        for slot, credit in enumerate(self._credit):
            for token in credit:
                credit[token] *= beta
            if view.masked[slot]:
                token = int(likeliest[slot])
                credit[token] = credit.get(token, 0.0) + float(view.probabilities[slot, token]) ** gamma
                if self.options.kept is not None and len(credit) > self.options.kept:
                    # The newest evidence stays, so that a new candidate can gather credit at all.
                    del credit[min((t for t in credit if t != token), key=credit.__getitem__, default=token)]
            for token, value in credit.items():
                logits[slot, token] += alpha * np.log1p(value)
        return logits

    def _parameters(self, view: BlockState) -> tuple[float, float, float]:
        if not self.options.parameter_free:
            return self.options.alpha, self.options.beta, self.options.gamma
        unmasked = 1.0 - float(view.masked.mean())
        return unmasked, unmasked, 1.0


METHOD = Method(
    kind=TRANSFORM,
    guarantee="lossy",
    summary="Raises tokens that were a slot's most likely one for several steps.",
    paper="CreditDecoding: Accelerating Parallel Decoding in Diffusion LLMs with Trace Credit (2025)",
    options=CreditOptions,
    build=lambda _, options: Credit(options),
    sweep={
        "credit": at(THRESHOLDS, "credit+threshold:threshold={}"),
        "credit, sparse": at(THRESHOLDS, "credit:kept=8+threshold:threshold={}"),
        "credit, parameter-free": at(THRESHOLDS, "credit:parameter_free=True+threshold:threshold={}"),
    },
)
