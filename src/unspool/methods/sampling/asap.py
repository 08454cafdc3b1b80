"""``asap``: masks what a grammar forbids and weights the rest by what earlier samples learned; see ``_aligned``."""

from __future__ import annotations

from functools import partial

from unspool.engine.method import SAMPLER, Method, Needs
from unspool.methods.sampling._aligned import CASE, AlignedOptions, AlignedShaper

METHOD = Method(
    kind=SAMPLER,
    guarantee="valid",
    summary="Samples texts of a grammar, with each sample closer to the model's own distribution over them.",
    paper="Grammar-Aligned Decoding (2024)",
    options=AlignedOptions,
    build=lambda _, options: partial(AlignedShaper, "asap"),
    needs=Needs(tokenizer=True),
    case=CASE,
)
