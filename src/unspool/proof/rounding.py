"""A backend's noise: how far logits change when the same tokens are scored in passes of other widths.

Measured on plain decoding's text, without any method. The compared passes are never committed: the cache contains only
entries from single-node passes, so a fault of ``commit`` cannot pass as noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from unspool.conformance.passes import prefilled, scored
from unspool.engine.contracts import LanguageModel, Logits
from unspool.engine.tree import TokenTree
from unspool.proof.case import Case
from unspool.proof.result import NoisePoint
from unspool.proof.scale import Scale, runner_up

WIDTHS = (1, 2, 4, 8, 16, 32, 64)

FEW = 4
"""Cases on which noise is measured, in addition to every case in which a run differs from plain decoding."""

_STRIDE = 4  # passes of 1 and 2 nodes start at every fourth token; a wider pass starts where the last one ended


@dataclass
class _Sum:
    max: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, other: _Sum) -> None:
        self.max = max(self.max, other.max)
        self.squares += other.squares
        self.count += other.count


@dataclass
class _Pending:
    """A pass whose rows wait for the single-node passes that they are compared with."""

    width: int
    start: int
    rows: Logits


class NoiseMeter:
    """Measures the noise of a model at one temperature.

    Attributes:
        limit: threshold of a tie: the largest change of the lead of plain's token over its runner-up, in scores (logits
            divided by the temperature). 0 before the first measurement.
        root: largest change of a logit at a pass's first node, whose place is the same at any width.
        chain: largest change of any logit.
        largest: largest absolute value of a finite logit.
        resolution: smallest relative step of the logits' number format.
        leads: the leads of plain's tokens.
    """

    def __init__(self, model: LanguageModel, temperature: float) -> None:
        self.model = model
        self.scale = Scale(temperature)
        self.limit = self.root = self.largest = self.resolution = 0.0
        self.leads: list[float] = []
        self._sums = {width: _Sum() for width in WIDTHS}
        self._measured: set[int] = set()

    @property
    def chain(self) -> float:
        return max(total.max for total in self._sums.values())

    def measure(self, case: Case) -> None:
        """Score plain's output in passes of 1 to 64 nodes. Does nothing if this case has been measured.

        Passes start at every fourth token, or where the last of their width ended, so that together they cost about
        twice the decoding of the case.
        """
        if case.number in self._measured:
            return
        self._measured.add(case.number)
        text = [*case.prompt, *case.token_ids]
        # Padding for the last passes: what follows the text is never looked at.
        text += text[-1:] * max(WIDTHS)
        pending: list[_Pending] = []
        with prefilled(self.model, case.prompt) as session:
            for index in range(len(case.token_ids)):
                at = len(case.prompt) - 1 + index
                room = min(session.max_depth, self.model.max_length - at)
                for width in WIDTHS:
                    if index % max(width, _STRIDE) == 0 and width <= room:
                        rows = scored(self.model, session, TokenTree.chain(text[at : at + width]))
                        pending.append(_Pending(width, index, rows))
                row = scored(self.model, session, TokenTree.chain([text[at]]), [0])[0]
                self._compare(case, index, row, pending)
                pending = [one for one in pending if one.start + one.width > index + 1]

    def _compare(self, case: Case, index: int, row: Logits, pending: Iterable[_Pending]) -> None:
        token = case.token_ids[index]
        scores = self.scale.scores(row, case.seed, len(case.prompt) + index)
        second = runner_up(scores, token)
        self.leads.append(float(scores[token] - scores[second]))
        self.largest = max(self.largest, float(np.abs(row[np.isfinite(row)]).max()))
        self.resolution = float(np.finfo(row.dtype).eps)
        shaped = self.scale.shaped(row)
        for one in pending:
            wide = one.rows[index - one.start]
            with np.errstate(invalid="ignore"):
                change = np.where(wide == row, 0, np.abs(wide.astype(np.float64) - row))
            total = _Sum(float(change.max()), float(np.square(change).sum()), change.size)
            self._sums[one.width].add(total)
            if one.start == index:
                self.root = max(self.root, total.max)
            # Sampling noise is the same in both leads, so it cancels out.
            moved = self.scale.shaped(wide)[[token, second]] - shaped[[token, second]]
            self.limit = max(self.limit, abs(float(moved[0] - moved[1])))


def points(meters: Iterable[NoiseMeter]) -> list[NoisePoint]:
    """Noise by width over everything these meters measured; widths longer than every text are left out."""
    sums = {width: _Sum() for width in WIDTHS}
    for meter in meters:
        for width, total in meter._sums.items():
            sums[width].add(total)
    return [NoisePoint(width, s.max, sqrt(s.squares / s.count)) for width, s in sums.items() if s.count]
