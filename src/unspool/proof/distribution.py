"""Whether an acceptance rule preserves the model's distribution: exactly on tiny models, by a test on a real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import erfc, exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from unspool.conformance.passes import prefilled, scored, store
from unspool.engine.autoregressive import MAX_TREE_NODES
from unspool.engine.contracts import AcceptanceRule, Context, Drafter, LanguageModel, Logits, Session
from unspool.engine.noise import rule_generator
from unspool.engine.options import GenerationOptions
from unspool.engine.progress import Progress
from unspool.engine.target import ShapedTarget
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.shaping import _built_in as shaping

PREFIXES = 3
DRAWN = 200
"""Number of outputs drawn after each prefix, by the rule and by plain sampling each."""

LENGTH = 2
"""Tokens per output: a draft token and its successor, or the token that replaces the draft and its successor."""

_RARE = 10  # outputs rarer than this in both samples together are pooled

Output = tuple[int, ...]
Build = Callable[[], Drafter]


class Prefix:
    """Draws outputs after one text. Every tree is scored only once, so many draws cost few passes.

    Replays the loop of a request for two new tokens on recorded logits, so drafts are one token deep.

    Args:
        model: of the session.
        session: contains all of ``tokens`` except the last.
        tokens: the text.
        assistants: other models that drafters run.
    """

    def __init__(
        self,
        model: LanguageModel,
        session: Session,
        tokens: Sequence[int],
        temperature: float,
        assistants: Sequence[LanguageModel] = (),
    ) -> None:
        self._model, self._session, self._assistants = model, session, assistants
        self._length = session.length
        self._tokens = list(tokens)
        self._options = GenerationOptions(temperature=temperature)
        self._shapers = shaping.build(self._options)
        self._scored: dict[tuple[Output, TokenTree], Logits] = {}
        self.drafted = self.accepted = 0

    def draw(self, build: Build | None, rule: AcceptanceRule, seed: int) -> Output:
        """Draw two tokens.

        Args:
            build: makes the drafter, whose memory is not changed; None drafts nothing.
        """
        emitted: Output = ()
        while len(emitted) < LENGTH:
            tokens = [*self._tokens, *emitted]
            levels = min(LENGTH - len(emitted), self._session.max_depth)
            tree = TokenTree.chain(tokens[-1:])
            if build is not None and levels > 1:
                context = Context(tokens, len(self._tokens), seed, self._options.temperature, rule.uses_draft_probs)
                drafter = build()
                with turn(self._model, *self._assistants):
                    drafter.start(context)
                    tree = drafter.propose(context, MAX_TREE_NODES).truncated(levels - 1)
            options = replace(self._options, seed=seed)
            target = ShapedTarget(tree, self._logits(emitted, tree), tokens, self._shapers, options)
            decision = rule.decide(target, partial(rule_generator, seed, len(tokens)))
            self.drafted += len(tree) > 1
            self.accepted += len(decision.path) > 1
            emitted += (*(tree.tokens[node] for node in decision.path[1:]), decision.token)
        return emitted[:LENGTH]

    def _logits(self, emitted: Output, tree: TokenTree) -> Logits:
        key = emitted, replace(tree, distributions=())
        if key not in self._scored:
            if emitted:
                store(self._model, self._session, [self._tokens[-1], *emitted[:-1]])
            self._scored[key] = scored(self._model, self._session, tree)
            self._session.rewind(self._length)
        return self._scored[key]


def two_samples(
    model: LanguageModel,
    texts: Sequence[Sequence[int]],
    build: Build,
    rule: AcceptanceRule,
    temperature: float,
    seed: int,
    what: str,
    progress: Progress,
    assistants: Sequence[LanguageModel] = (),
) -> dict[str, float | int | str]:
    """Draw outputs by the rule and by plain sampling after some texts, and test whether they are alike.

    Args:
        build: makes the drafter. Its memory should be warm: without drafts the rule is plain sampling.
        temperature: above 0.
        seed: of the draws, which all differ.
        what: label for ``progress``.
        assistants: other models that drafters run.

    Returns:
        ``p_value`` of a chi-squared test over all texts; the number of ``draws`` by the rule; how many of them
        ``drafted`` and ``accepted`` a draft.
    """
    statistic, freedom, drafted, accepted = 0.0, 0, 0, 0
    for number, text in enumerate(texts):
        first = seed + 2 * DRAWN * number
        with prefilled(model, text) as session:
            prefix = Prefix(model, session, text, temperature, assistants)
            by_rule = []
            for i in range(DRAWN):
                progress(what, number * DRAWN + i, len(texts) * DRAWN)
                by_rule.append(prefix.draw(build, rule, first + i))
            drafted, accepted = drafted + prefix.drafted, accepted + prefix.accepted
            # The single-node pass after each token is the one that the rule saw after a rejected draft.
            by_plain = [prefix.draw(None, ExactMatch(), first + DRAWN + i) for i in range(DRAWN)]
        found = chi_squared(contingency(by_rule, by_plain))
        statistic, freedom = statistic + found[0], freedom + found[1]
    progress(what, len(texts) * DRAWN, len(texts) * DRAWN)
    return {
        "p_value": p_value(statistic, freedom),
        "draws": len(texts) * DRAWN,
        "drafted": drafted,
        "accepted": accepted,
    }


def contingency(a: Sequence[Output], b: Sequence[Output]) -> NDArray[np.int64]:
    """Counts [2, cells] of two samples' outputs. Rare outputs are pooled by first token, or all together."""
    both = Counter([*a, *b])
    common = {output for output, count in both.items() if count >= _RARE}
    firsts: Counter[int] = Counter()
    for output, count in both.items():
        firsts[output[0]] += count * (output not in common)

    def cell(output: Output) -> Output:
        if output in common:
            return output
        return output[:1] if firsts[output[0]] >= _RARE else ()

    counts = [Counter(map(cell, sample)) for sample in (a, b)]
    cells = sorted({*counts[0], *counts[1]})
    return np.array([[count[key] for key in cells] for count in counts], dtype=np.int64)


def chi_squared(table: NDArray[np.int64]) -> tuple[float, int]:
    """Chi-squared and degrees of freedom of two samples; no column of [2, cells] may be empty."""
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return float((np.square(table - expected) / expected).sum()), table.shape[1] - 1


def p_value(statistic: float, freedom: int) -> float:
    """Probability of a chi-squared at least this large, by the finite sum for integer degrees of freedom.

    1 if there is nothing to compare.
    """
    half = statistic / 2
    # The upper incomplete gamma function at freedom / 2, by its recurrence from 1 / 2 or 1.
    if freedom % 2:
        total, order, term = erfc(sqrt(half)), 1.5, exp(-half) * sqrt(half) * 2 / sqrt(pi)
    else:
        total, order, term = float(freedom == 0), 1.0, exp(-half)
    while order <= freedom / 2:
        total += term
        term *= half / order
        order += 1
    return total
