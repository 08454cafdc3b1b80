"""Pairs of models as far apart as the card of known mistakes says."""

from __future__ import annotations

import numpy as np

from unspool.backends.toy import ToyModel
from unspool.conformance.pairs import normalised


def divergence(target: ToyModel, draft: ToyModel, token: int) -> float:
    """Total variation of the two distributions after ``token``."""
    return 0.5 * float(np.abs(target.probabilities((token,)) - draft.probabilities((token,))).sum())


def five_tokens(distance: str) -> tuple[ToyModel, ToyModel]:
    """Pairs over 5 tokens whose total variation after token 0 is that of the card: "far" 0.75, "close" 0.07."""
    noise, seed = {"far": (2.5, 163), "close": (0.2, 1)}[distance]
    rng = np.random.default_rng(seed)
    p = normalised(np.exp(rng.standard_normal((6, 5))))
    return ToyModel(p), ToyModel(normalised(p * np.exp(noise * rng.standard_normal((6, 5)))))
