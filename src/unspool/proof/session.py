"""Whether a backend's session fulfils its contract: a token's logits do not depend on how the text was cached.

Plain output is scored one token at a time, and again in the ways of ``conformance.session``.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from unspool.conformance.passes import one_by_one
from unspool.conformance.session import WAYS
from unspool.proof.case import Case
from unspool.proof.result import MethodProof
from unspool.proof.rounding import NoiseMeter

NAME = "session"
"""Name of the row; not a method of the registry."""

_TOKENS = 12  # compared per case and way

# Rounding grows through the cache: later passes read what a pass of many nodes stored. Faults change logits by tenths
# at least, rounding by at most this many times the change of a single node.
_GROWTH = 100


def check(meter: NoiseMeter, cases: Sequence[Case]) -> MethodProof:
    """One row: for each way, the largest change of a logit, and the limit that rounding explains.

    The limit follows from the noise of a pass's first node, whose place is the same at any width: a fault of positions,
    masks or cache cannot widen it. Noise that would flip every second choice is itself a fault.

    Args:
        meter: has already measured the cases.
    """
    allowed = min(_GROWTH * max(meter.root, meter.resolution * meter.largest), median(meter.leads))
    changes = {"widths": meter.chain} | dict.fromkeys(WAYS, 0.0)
    identical = tokens = 0
    for case in cases:
        output = case.token_ids[:_TOKENS]
        rows = [row.copy() for row in one_by_one(meter.model, case.prompt, output)]
        worst = 0.0
        for name, way in WAYS.items():
            for row, expected in zip(way(meter.model, case.prompt, output), rows, strict=True):
                with np.errstate(invalid="ignore"):
                    change = float(np.where(row == expected, 0, np.abs(row - expected)).max())
                worst = max(worst, change)
                changes[name] = max(changes[name], change)
        identical += worst <= allowed
        tokens += len(output) * len(WAYS)
    faults = sum(change > allowed for change in changes.values())
    return MethodProof(
        NAME,
        "identical",
        "identity",
        0.0,
        len(cases),
        identical,
        tokens,
        0,
        faults,
        details={**changes, "allowed": allowed},
    )
