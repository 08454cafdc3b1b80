"""Lazy masks: how rarely does a grammar's mask have to be computed, if a token is drawn first and checked?

Three grammars in which nearly every token is free. Each text is decoded without drafts, greedily or at temperature 1,
and twice: lazily, which is the default (draw, keep the token if the grammar permits it, else draw again under the
mask), and with a mask for every token. Both must give the same text. There are slightly more masks than tokens, since
forced tokens are looked for ahead.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

from unspool.decoding.model import Model
from unspool.engine.contracts import TokenChecker
from unspool.experiments._code_grammars import GRAMMARS, QUERIES, REQUESTS, WHATS
from unspool.experiments._drafting import by_variant
from unspool.methods.constraints.grammar import GrammarConstraint
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import ratio, ratio_of_ratios

LAZY, ALWAYS = "where needed", "always"


class _Never:
    """What no constraint is an instance of: masks are computed for every token."""


def cases(setup: Setup) -> list[Case]:
    """A case is a request under a grammar, greedy or drawn, in both variants."""

    def measure(grammar: str, number: int) -> list[Row]:
        return [_decode(setup.language_model(), grammar, number, variant, setup.pick(96, 12)) for variant in VARIANTS]

    keys = [(grammar, number) for number in range(setup.count) for grammar in GRAMMARS]
    return [Case(f"{grammar}, {number}", partial(measure, grammar, number)) for grammar, number in keys]


VARIANTS = (LAZY, ALWAYS)


def _decode(model: Model, grammar: str, number: int, variant: str, max_new_tokens: int) -> Row:
    allowed = GrammarConstraint.allowed
    masks = 0

    def counted(self: GrammarConstraint, path: Any) -> Any:
        nonlocal masks
        masks += 1
        return allowed(self, path)

    round_, at = divmod(number, len(WHATS))
    with (
        patch.object(GrammarConstraint, "allowed", counted),
        patch("unspool.engine.target.TokenChecker", TokenChecker if variant == LAZY else _Never),
    ):
        result = model.generate(
            REQUESTS[grammar].format(what=WHATS[at], query=QUERIES[at]),
            grammar=GRAMMARS[grammar],
            method="plain",
            max_new_tokens=max_new_tokens,
            temperature=float(round_ % 2),
            seed=round_,
        )
    ended = result.finish_reason == "stop"
    return {
        "variant": variant,
        "grammar": grammar,
        "tokens": len(result.token_ids),
        "masks": masks,
        "ended": ended,
        "parses": _parses(result.text) if ended and grammar == "Python" else None,
        "digest": hashlib.sha256(repr(result.token_ids).encode()).hexdigest()[:16],
    }


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def summarise(rows: Sequence[Row]) -> Summary:
    """Masks per token, paired by text."""
    by = by_variant(rows)
    same = [a["digest"] == b["digest"] for a, b in zip(by[LAZY], by[ALWAYS], strict=True)]
    judged = [row["parses"] for row in by[LAZY] if row["parses"] is not None]

    def values(name: str, variant: str) -> list[float]:
        return [row[name] for row in by[variant]]

    figures = {
        "same texts": Figure(sum(same) / len(same), count=len(same)),
        "Python that does not parse": Figure(float(judged.count(False)), count=len(judged)),
        "masks a token": ratio(values("masks", LAZY), values("tokens", LAZY)),
        "masks, where needed / always": ratio_of_ratios(
            values("masks", LAZY), values("tokens", LAZY), values("masks", ALWAYS), values("tokens", ALWAYS)
        ),
    }
    drawn = []
    for grammar in GRAMMARS:
        for variant in VARIANTS:
            found = [row for row in by[variant] if row["grammar"] == grammar]
            total = {name: sum(row[name] for row in found) for name in ("tokens", "masks", "ended")}
            cells = (str(total["tokens"]), f"{total['masks'] / max(1, total['tokens']):.3f}")
            drawn.append((f"{grammar}, {variant}", *cells, f"{total['ended']} of {len(found)}"))
    return Summary(figures, [Table("", ("masks", "tokens", "masks/token", "texts that ended"), drawn)])


EXPERIMENT = Experiment(
    methods=("grammar",),
    claim="Under a grammar of code most tokens that a model chooses are permitted anyway, so that drawing first and "
    "checking the token needs a fraction of the masks and gives the same text.",
    control="a mask for every token",
    test="a subset of Python, a C-like language and SQL; eight requests each, greedily, then again at temperature 1",
    cases=cases,
    summarise=summarise,
    requires=[Expect("same texts", at_least=1), Expect("Python that does not parse", at_most=0)],
    expects=[Expect("masks, where needed / always", at_most=0.5)],
    count=16,
    minutes=10,
)
