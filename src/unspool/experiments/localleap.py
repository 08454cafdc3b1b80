"""LocalLeap: is a token next to a very confident one safer than its own confidence says?

The control relaxes the threshold for as many masked slots as are near an anchor, at random places of the block. If it
does as well, the method is only a lower threshold, without an effect of locality.

On the 24 slots of the short canvas every masked slot is near any anchor, so both sides commit the same. There the test
measures a threshold that is relaxed once any token is certain, not locality. A longer canvas would separate them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unspool.engine import noise
from unspool.engine.canvas import BlockState, Flags
from unspool.engine.canvas_request import Parts
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE, Made
from unspool.methods.diffusion.fixed_blocks import FixedBlocks
from unspool.methods.diffusion.localleap import LocalLeap, LocalLeapOptions
from unspool.reproduce.experiment import Case, Experiment, Row, Summary
from unspool.reproduce.setup import Setup

OURS, SCATTERED, PLAIN = "near anchors", "random places", "threshold"
PAPERS = "relaxed 0.75, radius 4"
"""The paper's setting."""


class Scattered(LocalLeap):
    """Relaxes the threshold at as many masked slots as are near an anchor, wherever they are."""

    def select(self, view: BlockState) -> Flags:
        options = self.options
        anchors = view.masked & (view.confidence >= options.threshold)
        near = np.convolve(anchors, np.ones(2 * options.radius + 1), mode="full")
        near = near[options.radius : options.radius + len(anchors)] > 0.5
        others = np.flatnonzero(view.masked & ~anchors)
        drawn = noise.canvas_generator(view.seed, view.sight.step).permutation(others)
        chosen = anchors.copy()
        chosen[drawn[: int((near & view.masked & ~anchors).sum())]] = True
        relaxed: Flags = view.confidence >= np.where(chosen, options.relaxed_threshold, options.threshold)
        return relaxed


def cases(setup: Setup) -> list[Case]:
    grid = [LocalLeapOptions(0.9, relaxed, radius) for relaxed in (0.5, 0.6, 0.75, 0.85) for radius in (2, 4)]

    def made(kind: type[LocalLeap], options: LocalLeapOptions) -> Parts:
        return Parts(kind(options), FixedBlocks())

    def line(kind: type[LocalLeap]) -> dict[str, Made]:
        return {f"relaxed {o.relaxed_threshold}, radius {o.radius}": partial(made, kind, o) for o in grid}

    return canvas.lines(
        setup,
        DEPENDENT,
        {
            ONE_BY_ONE: {"top_k": "top_k"},
            OURS: line(LocalLeap),
            SCATTERED: line(Scattered),
            PLAIN: canvas.at(canvas.THRESHOLDS, "threshold:threshold={}"),
        },
    )


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures = compare.against_reference(found, OURS, PAPERS)
    for control in (PLAIN, SCATTERED):
        figures |= compare.compared(found, OURS, control)
    return Summary(figures, [compare.table(found, PLAIN)])


EXPERIMENT = Experiment(
    methods=("localleap",),
    claim="Tokens near a very confident one can be committed at a relaxed threshold: fewer passes at nearly no loss.",
    control="at equal passes: a plain threshold; the threshold relaxed at as many random places of the block",
    test="three tasks with several right answers; threshold 0.9 relaxed to 0.5 to 0.85 within 2 or 4 slots; "
    f"{compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[
        *compare.lossless_and_fewer(OURS, 2),
        compare.better(OURS, PLAIN),
        compare.better(OURS, SCATTERED),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=6,
)
