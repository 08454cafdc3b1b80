"""AdaBlock: do blocks that end where the model predicts the end of a line beat blocks of a fixed length?

The control with random ends draws its blocks from the lengths that AdaBlock itself chose, so only their ends differ.
Decoding stops at the end of the text: the padding after it is not part of the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unspool.engine.canvas import CanvasState
from unspool.engine.canvas_request import Parts
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import SQUARES, Made
from unspool.methods.diffusion.adablock import AdaBlock, AdaBlockOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import mean

OURS, FIXED, RANDOM = "delimiters", "fixed blocks", "random ends"
LENGTHS = (8, 16)
THRESHOLDS = (0.8, 0.9)
LEARNED_ON = 10
"""Questions of each task whose block lengths the control draws from."""


class Recorded(AdaBlock):
    """Records the lengths that it chose."""

    def __init__(self, options: AdaBlockOptions, newlines: Sequence[int], lengths: list[int]) -> None:
        super().__init__(options, newlines)
        self.lengths = lengths

    def next_block(self, start: int, sight: CanvasState) -> int:
        self.lengths.append(super().next_block(start, sight))
        return self.lengths[-1]


class RandomEnds:
    """Blocks of lengths drawn from others' lengths."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths
        self._rng = np.random.default_rng(0)

    def check(self, slots: int) -> None: ...

    def next_block(self, start: int, sight: CanvasState) -> int:
        return int(self._rng.choice(self.lengths))


def cases(setup: Setup) -> list[Case]:
    known: dict[int, list[int]] = {}

    def lengths(block_length: int) -> list[int]:
        """What AdaBlock chooses on the first questions."""
        if block_length not in known:
            model, found = setup.diffusion_model(), list[int]()
            newlines = model.resources().delimiters()

            def made() -> Parts:
                options = AdaBlockOptions(block_length=block_length)
                return Parts(Threshold(), Recorded(options, newlines, found))

            canvas.answers(model, SQUARES, made, min(LEARNED_ON, setup.count), stop_at_eos=True)
            known[block_length] = found
        return known[block_length]

    def random_ends(block_length: int, threshold: float) -> Parts:
        return Parts(Threshold(ThresholdOptions(threshold)), RandomEnds(lengths(block_length)))

    grid = [(length, threshold) for length in LENGTHS for threshold in THRESHOLDS]
    ours: dict[str, Made] = {}
    fixed: dict[str, Made] = {}
    drawn: dict[str, Made] = {}
    for length, threshold in grid:
        name = f"blocks of {length}, threshold {threshold}"
        rest = f"block_length={length}+threshold:threshold={threshold}"
        ours[name], fixed[name] = f"adablock:{rest}", f"fixed_blocks:{rest}"
        drawn[name] = partial(random_ends, length, threshold)
    fixed |= {f"blocks of 4, threshold {t}": f"fixed_blocks:block_length=4+threshold:threshold={t}" for t in THRESHOLDS}

    def chosen() -> list[Row]:
        return [{"line": "lengths", "block_length": length, "lengths": lengths(length)} for length in LENGTHS]

    wanted = {OURS: ours, FIXED: fixed, RANDOM: drawn}
    return [*canvas.lines(setup, SQUARES, wanted, stop_at_eos=True), Case("lengths", chosen)]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    at_delimiters = [
        length != row["block_length"] for row in rows if row["line"] == "lengths" for length in row["lengths"]
    ]
    figures = {"share of blocks that end at a delimiter": mean([float(hit) for hit in at_delimiters])}
    for control in (FIXED, RANDOM):
        figures |= compare.compared(found, OURS, control)
    return Summary(figures, [compare.table(found, FIXED)])


EXPERIMENT = Experiment(
    methods=("adablock",),
    claim="Blocks that end where the model predicts a delimiter are more accurate than blocks of a fixed length at the "
    "same speed.",
    control="at equal passes: fixed blocks of 4 to 16 slots; blocks of AdaBlock's own lengths with random ends",
    test="Latin squares, written in four lines, with one completion and with several; settings chosen on half of the "
    "questions, reported on the other",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("share of blocks that end at a delimiter", at_least=0.3),
        compare.better(OURS, FIXED),
        compare.better(OURS, RANDOM),
    ],
    model=canvas.LONG_MODEL,
    quick_model=canvas.LONG_MODEL,
    count=200,
    minutes=12,
)
