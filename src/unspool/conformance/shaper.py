"""Checks of a shaper alone."""

from __future__ import annotations

import numpy as np

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.small_model import load, resources
from unspool.engine.contracts import Shaper
from unspool.engine.method import SHAPER


def logits_are_a_function_of_the_text(row: Row) -> None:
    """Equal texts get equal logits in any order of nodes, and its input is not changed."""
    model, rng = load(), np.random.default_rng(0)
    around, options = resources(model), options_of(row)

    def made() -> Shaper:
        return methods.build(row.name, SHAPER, around, options)

    prompt = model.encode(row.case.prompts[0])
    # Beginnings, branches of two symbols that may repeat, and longer texts before shorter ones.
    texts = [np.array(prompt + rng.choice(prompt[:2], n).tolist(), dtype=np.int64) for n in (*range(6), *range(6))]
    logits = rng.normal(size=(len(texts), model.language_model.vocab_size))
    before, shared = logits.copy(), made()
    alone = [made()(text, raw) for text, raw in zip(texts, logits, strict=True)]
    require(np.array_equal(logits, before), "the logits that it was given were changed in place; copy them")
    for i in rng.permutation(len(texts)):
        shaped = shared(texts[i], logits[i])
        require(np.shape(shaped) == logits[i].shape, f"it gave {np.shape(shaped)} logits for {logits[i].shape}")
        require(np.array_equal(shaped, alone[i]), "the same text got other logits after other texts were asked for")
    require(np.array_equal(logits, before), "the logits that it was given were changed in place; copy them")


CHECKS = (logits_are_a_function_of_the_text,)
