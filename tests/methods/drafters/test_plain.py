"""Plain decoding drafts nothing."""

from __future__ import annotations

from unspool.engine.contracts import Context, Drafter
from unspool.methods.drafters.plain import Plain


def test_bare_root_at_any_budget() -> None:
    drafter: Drafter = Plain()
    context = Context([4, 2, 4, 2], 3, seed=0, temperature=0.0)
    drafter.start(context)
    for budget in (1, 2, 81):
        assert drafter.propose(context, budget).tokens == (2,)
