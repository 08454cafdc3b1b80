"""What else the denoise loop computes from a pass: guided logits, and the predicted end of the text."""

from __future__ import annotations

import numpy as np

from unspool.engine.canvas import CanvasScores, Flags
from unspool.engine.numeric import softmax


def guided(conditional: CanvasScores, unconditional: CanvasScores, scale: float) -> CanvasScores:
    """Classifier-free guidance as in LLaDA: move the logits away from those without the prompt.

    Args:
        conditional: of the canvas.
        unconditional: of the canvas with a masked prompt, at the same positions.
        scale: w; 0 returns ``conditional`` up to rounding.

    Returns:
        Logits u + (w + 1) (c - u) in new memory, and the time of both passes.
    """
    c, u = conditional.logits, unconditional.logits
    with np.errstate(invalid="ignore"):
        logits = u + (scale + 1) * (c - u)
    logits[np.isneginf(c)] = -np.inf  # stays ruled out, even where the logits without the prompt rule it out too
    return CanvasScores(conditional.start, logits, conditional.ms + unconditional.ms)


def predicted_end(scores: CanvasScores, masked: Flags, mask_id: int, eos_token_id: int, least: float) -> int | None:
    """The masked position that predicts the end token with the highest probability; the first among equals.

    Args:
        masked: [length] of the canvas; positions that the pass did not feed are ignored.
        least: minimum probability; below it, None is returned.
    """
    left = np.flatnonzero(masked[scores.start : scores.start + len(scores.logits)])
    rows = scores.logits[left].astype(np.float64)
    rows[:, mask_id] = -np.inf
    ends = np.flatnonzero(rows.argmax(axis=1) == eos_token_id)
    if not len(ends):
        return None
    chances = np.array([softmax(row)[eos_token_id] for row in rows[ends]])
    best = int(chances.argmax())
    return scores.start + int(left[ends[best]]) if chances[best] >= least else None
