"""One edit of a cached prompt in several modes, each compared with recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.edit import EditableText, edit
from unspool.decoding.model import Model
from unspool.engine.numeric import log_softmax
from unspool.engine.tree import TokenTree
from unspool.experiments._edits import EditCase
from unspool.methods.cache.edit import PieOptions
from unspool.reproduce.experiment import Row

EXACT, CONFLICT, PIE, HYBRID = "recompute", "conflict", "pie", "hybrid, names 64"
MODES = {
    EXACT: PieOptions("recompute"),
    CONFLICT: PieOptions("conflict"),
    PIE: PieOptions("pie"),
    HYBRID: PieOptions("hybrid", "names", 64),
}


def compare(model: Model, module: str, case: EditCase, modes: Sequence[str], max_new_tokens: int) -> list[Row]:
    """One row a mode; recomputation is the first of ``modes``.

    Returns:
        ``kl``: divergence in nats of the next token's distribution from that after recomputation. ``top1``: whether
        both have the same most likely token, ``same line`` whether the greedy next line is the same. ``answer``:
        whether that line begins with the true one. ``decisive``: whether recomputation is right and the line before
        the edit was another one. ``old``: whether the line is still the one before the edit and recomputation's is
        not. ``encoded``: tokens that went through the model.
    """
    base = edit(model, case.before, mode="recompute")
    line_before = _next_line(base, max_new_tokens)
    rows: list[Row] = []
    true: NDArray[np.float64] | None = None
    line = ""
    for mode in modes:
        editor = copy(base)  # the text is encoded once, and each mode gets a cache of its own
        editor._options, editor._session = MODES[mode], base._session.fork()
        done = editor.replace_all(case.changes)
        row, text = _next_token(editor), _next_line(editor, max_new_tokens)
        if true is None:
            true, line = row, text
        rows.append(
            {
                "variant": mode,
                "module": module,
                "kind": case.kind,
                "kl": round(float((np.exp(true) * (true - row)).sum()), 6),
                "top1": bool(row.argmax() == true.argmax()),
                "same line": text == line,
                "answer": text.startswith(case.line),
                "decisive": line.startswith(case.line) and line != line_before,
                "old": text == line_before != line,
                "encoded": done.encoded,
            }
        )
        editor.close()
    base.close()
    return rows


def _next_token(editor: EditableText) -> NDArray[np.float64]:
    """Log-probabilities [vocabulary] after the text."""
    session = editor._session.fork()
    row = log_softmax(session.score(TokenTree.chain(editor.tokens[-1:])).logits[0])
    session.close()
    return row


def _next_line(editor: EditableText, max_new_tokens: int) -> str:
    text = editor.generate(method="plain", max_new_tokens=max_new_tokens).text
    return text.strip().partition("\n")[0].strip()
