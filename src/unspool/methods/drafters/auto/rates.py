"""How often drafts were right: what ``auto`` remembers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unspool.engine import arrays
from unspool.errors import UnspoolError

_DEPTHS = 6

PRIORS: dict[str, Callable[[int], float]] = {
    "suffix": lambda matched: 1 - 0.75 / max(1, matched),
    "token_recycling": lambda rank: (0.3, 0.08, 0.05, 0.03, 0.02)[min(rank, 4)],
}
"""Prior probability that a draft of a source and bucket is right, before any observation: fitted to 30 answers of
Qwen2.5-Coder-0.5B (Spec-Bench, HumanEval, edits of source files). 0.3 for other sources."""

PRIOR_WEIGHT, FORGET = 8.0, 0.98  # see AutoOptions

_Key = tuple[str, int, int]
_WHAT = "table of acceptance rates"


class AcceptanceRates:
    """How often drafts of a source, bucket and depth are right; a ``Memory`` that contains no text.

    A kind with few observations borrows from all depths of its bucket, which borrows from ``PRIORS``.
    """

    def __init__(self) -> None:
        self._counts: dict[_Key, tuple[float, float]] = {}

    def rate(self, source: str, bucket: int, depth: int, prior_weight: float = PRIOR_WEIGHT) -> float:
        """Probability that such a draft is right, given that its parent was.

        Args:
            prior_weight: number of observations that the prior counts as, above 0.
        """
        known = PRIORS.get(source)
        prior = self._estimate((source, bucket, 0), known(bucket) if known else 0.3, prior_weight)
        return self._estimate((source, bucket, min(depth, _DEPTHS)), prior, prior_weight)

    def _estimate(self, key: _Key, prior: float, weight: float) -> float:
        hits, trials = self._counts.get(key, (0.0, 0.0))
        return (hits + weight * prior) / (trials + weight)

    def update(self, source: str, bucket: int, depth: int, hit: bool, forget: float = FORGET) -> None:
        """Count one draft.

        Args:
            forget: weight that earlier counts keep, 0 to 1.
        """
        for key in ((source, bucket, 0), (source, bucket, min(depth, _DEPTHS))):
            hits, trials = self._counts.get(key, (0.0, 0.0))
            self._counts[key] = (hits * forget + hit, trials * forget + 1)

    def reset(self) -> None:
        """Forget everything."""
        self._counts = {}

    def save(self, path: Path) -> None:
        """Write everything to a JSON file; replaces an existing file in one step."""
        rows = [[*key, *value] for key, value in self._counts.items()]
        arrays.replace(path, _WHAT, lambda part: part.write_text(json.dumps(rows), encoding="utf-8"))

    def load(self, path: Path) -> None:
        """Replace the contents with those of a file that ``save`` wrote.

        Raises:
            UnspoolError: if the file cannot be read or was not written by ``save``; nothing is changed then.
        """
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UnspoolError(f"cannot read the {_WHAT} {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise UnspoolError(f"{path} is not a saved {_WHAT}; delete it and start with a new one")
        self._counts = {(source, bucket, depth): (hits, trials) for source, bucket, depth, hits, trials in rows}


def _is_row(row: Any) -> bool:
    """Whether ``save`` may have written it: source, bucket, depth, number of right drafts, number of drafts."""
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, int, float, float]:
        return False
    _, bucket, depth, hits, trials = row
    return bucket >= 0 and 0 <= depth <= _DEPTHS and 0 <= hits <= trials and math.isfinite(trials)
