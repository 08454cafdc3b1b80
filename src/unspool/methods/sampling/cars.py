"""``cars``: rejects samples that leave a grammar, and learns from them; see ``_aligned``."""

from __future__ import annotations

from functools import partial

from unspool.engine.method import SAMPLER, Method, Needs
from unspool.methods.sampling._aligned import CASE, AlignedOptions, AlignedShaper

METHOD = Method(
    kind=SAMPLER,
    guarantee="valid",
    summary="Samples texts of a grammar from exactly the model's own distribution, by adaptive rejection sampling.",
    paper="Constrained Adaptive Rejection Sampling (2025)",
    options=AlignedOptions,
    build=lambda _, options: partial(AlignedShaper, "cars"),
    needs=Needs(tokenizer=True),
    case=CASE,
)
