"""``same_noise``: accepts drafted tokens that equal the draw with the position's own noise; see ``_exact_match``.

So a sampled text equals plain decoding's with the same seed, token for token.
"""

from __future__ import annotations

from unspool.engine.method import ACCEPTANCE, Method, NoOptions
from unspool.methods.acceptance._exact_match import ExactMatch

METHOD = Method(
    kind=ACCEPTANCE,
    guarantee="identical",
    summary=(
        "Accepts drafted tokens that equal the draw with the position's noise: plain decoding's text for that seed."
    ),
    paper="Gumbel coupling (unspool's reference rule for sampling)",
    options=NoOptions,
    build=lambda *_: ExactMatch(),
    at_temperature="above zero",
)
