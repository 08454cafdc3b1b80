"""``greedy``: accepts drafted tokens that equal the argmax. The rule at temperature 0; see ``_exact_match``."""

from __future__ import annotations

from unspool.engine.method import ACCEPTANCE, Method, NoOptions
from unspool.methods.acceptance._exact_match import ExactMatch

METHOD = Method(
    kind=ACCEPTANCE,
    guarantee="identical",
    summary="Accepts drafted tokens that equal the argmax. The rule at temperature 0.",
    paper="textbook greedy verification of a tree",
    options=NoOptions,
    build=lambda *_: ExactMatch(),
    at_temperature="zero",
)
