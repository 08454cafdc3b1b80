"""``same_noise``: keeps drafts that equal the draw with the position's own noise; see ``_follow``.

So a sampled text is token for token the plain run of its seed.
"""

from __future__ import annotations

from unspool.engine.method import ACCEPTANCE, Method, NoOptions
from unspool.methods.acceptance._follow import Follow

METHOD = Method(
    kind=ACCEPTANCE,
    guarantee="identical",
    summary=(
        "Keeps drafts that equal the draw with the position's own noise: token for token the plain run of that seed."
    ),
    paper="Gumbel coupling (unspool's reference rule for sampling)",
    options=NoOptions,
    build=lambda *_: Follow(),
    at_temperature="above zero",
)
