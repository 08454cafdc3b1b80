"""Exact output distributions of acceptance rules, without randomness: every draft and every outcome is summed over.

The rule that is enumerated is the one that decodes: its ``walk`` takes its randomness as an argument, and here a script
that visits every outcome takes the place of a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool.backends.toy import ToyModel
from unspool.engine.contracts import Decision, Target
from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree
from unspool.methods.acceptance.lossless import Chance

Row = NDArray[np.float64]
Text = tuple[int, ...]
Drawn = list[tuple[int, DraftDistribution | None]]  # siblings in draw order; None marks a point mass
Siblings = Callable[[Row, int, Text], Iterator[tuple[Drawn, float]]]  # (q, count, text) -> every draw with its weight
Shape = tuple["Shape", ...]  # the shape of the subtree below each sibling, in draw order
Output = dict[Text, float]


@runtime_checkable
class Walks(Protocol):
    """An acceptance rule whose randomness is an argument, so that its outcomes can be enumerated."""

    def walk(self, target: Target, chance: Chance) -> Decision:
        """The rule's decision on the scored tree of ``target``, with all its randomness from ``chance``."""
        ...


class TextTarget:
    """The target distributions of a tree, straight from the toy model's table; a ``Target``.

    The noise of a position is ``chance``. It is good for one choice: a second one at the same position would have to
    give the same token wherever the distributions are equal.
    """

    def __init__(self, model: ToyModel, prompt: Text, tree: TokenTree, chance: Chance) -> None:
        self.tree = tree
        self._model = model
        self._prompt = prompt
        self._chance = chance
        self._used: set[int] = set()

    def probabilities(self, node: int) -> Row:
        return self._model.probabilities((*self._prompt, *self.tree.path_tokens(node)))

    def choose(self, node: int) -> int:
        depth = int(self.tree.depths[node])
        if depth in self._used:
            raise ValueError(f"the noise of the position {depth} behind the root was used twice")
        self._used.add(depth)
        return self._chance.draw(self.probabilities(node))


class Script:
    """A ``Chance`` that replays answers, then takes the first possible one and notes the others for later."""

    def __init__(self, answers: tuple[int, ...], open_scripts: list[tuple[int, ...]]) -> None:
        self.probability = 1.0
        self._answers = answers
        self._taken: tuple[int, ...] = ()
        self._open = open_scripts

    def accept(self, probability: float) -> bool:
        return bool(self._answer([1 - probability, probability]))

    def draw(self, p: Row) -> int:
        return self._answer(p.tolist())

    def _answer(self, weights: list[float]) -> int:
        if len(self._taken) < len(self._answers):
            answer = self._answers[len(self._taken)]
        else:
            answer, *others = (i for i, weight in enumerate(weights) if weight > 0)
            self._open.extend((*self._taken, other) for other in others)
        self._taken = (*self._taken, answer)
        self.probability *= weights[answer]
        return answer


def outcomes(rule: Walks, model: ToyModel, prompt: Text, tree: TokenTree) -> Iterator[tuple[Decision, float]]:
    """Every decision that the rule can come to on a tree behind ``prompt``, with its probability.

    The rule's own randomness and the noise of positions are independent, so one script answers for both.
    """
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        script = Script(scripts.pop(), scripts)
        decision = rule.walk(TextTarget(model, prompt, tree, script), script)
        yield decision, script.probability


def joint(rule: Walks, model: ToyModel, prompt: Text, drafts: Iterator[tuple[TokenTree, float]], length: int) -> Output:
    """The distribution of the first ``length`` tokens when one round is followed by plain sampling."""
    emitted: Output = {}
    for tree, weight in drafts:
        for decision, probability in outcomes(rule, model, prompt, tree):
            tokens = (*(tree.tokens[node] for node in decision.path[1:]), decision.token)[:length]
            emitted[tokens] = emitted.get(tokens, 0.0) + weight * probability
    output: Output = {}
    for tokens, weight in emitted.items():
        for rest, probability in model.distribution(length - len(tokens), (*prompt, *tokens)).items():
            output[tokens + rest] = output.get(tokens + rest, 0.0) + weight * probability
    return output


def total_variation(a: Output, b: Output) -> float:
    """Half the sum of the absolute differences."""
    return 0.5 * sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in {*a, *b})


def trees(draft: ToyModel, prompt: Text, shape: Shape, siblings: Siblings) -> Iterator[tuple[TokenTree, float]]:
    """Every tree of this shape that ``siblings`` can draw from the draft model, with its probability."""

    def grow(nodes: list[Node], waiting: list[tuple[int, Text, Shape]]) -> Iterator[tuple[TokenTree, float]]:
        if not waiting:
            yield build(nodes), 1.0
            return
        (node, text, below), *rest = waiting
        for drawn, weight in siblings(draft.probabilities(text), len(below), text):
            more = [(token, node, distribution) for token, distribution in drawn]
            # A subtree that gets no sibling (the draft distribution ran out of tokens) is left out.
            next_waiting = [
                (len(nodes) + i, (*text, token), inner)
                for i, ((token, _), inner) in enumerate(zip(drawn, below, strict=False))
                if inner
            ]
            for tree, inner_weight in grow(nodes + more, rest + next_waiting):
                yield tree, weight * inner_weight

    return grow([(prompt[-1], -1, None)], [(0, prompt, shape)])


Node = tuple[int, int, DraftDistribution | None]  # token, parent, what it was drawn from


def build(nodes: Sequence[Node]) -> TokenTree:
    """A token tree of nodes in topological order, siblings in draw order."""
    distributions: list[DraftDistribution] = []
    drafts = []
    for _, _, distribution in nodes:
        if distribution is None:
            drafts.append(POINT_MASS)
            continue
        known = next((i for i, other in enumerate(distributions) if other is distribution), None)
        if known is None:
            known = len(distributions)
            distributions.append(distribution)
        drafts.append(known)
    return TokenTree(
        tuple(token for token, _, _ in nodes),
        tuple(parent for _, parent, _ in nodes),
        drafts=tuple(drafts),
        distributions=tuple(distributions),
    )


def without(p: Row, tokens: Sequence[int]) -> Row | None:
    """``p`` given that it is none of ``tokens``; None if nothing is left."""
    rest = p.copy()
    rest[list(tokens)] = 0
    return rest / rest.sum() if rest.any() else None


def ordered_draws(q: Row, count: int) -> Iterator[tuple[Text, float]]:
    """Every sequence of ``count`` draws without replacement, with its probability; fewer where ``q`` runs out."""
    if not count:
        yield (), 1.0
        return
    for token in np.flatnonzero(q).tolist():
        rest = without(q, [token])
        if rest is None:
            yield (token,), float(q[token])
            continue
        for tokens, weight in ordered_draws(rest, count - 1):
            yield (token, *tokens), float(q[token]) * weight


def independent(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule B: siblings drawn independently."""
    distribution = DraftDistribution(q, replacement=True)
    support = np.flatnonzero(q).tolist()
    for choice in np.ndindex(*(len(support),) * count):
        tokens = [support[i] for i in choice]
        yield [(token, distribution) for token in tokens], float(np.prod(q[tokens]))


def no_replacement(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule C: siblings drawn without replacement."""
    distribution = DraftDistribution(q, replacement=False)
    for tokens, weight in ordered_draws(q, count):
        yield [(token, distribution) for token in tokens], weight


def deduplicated(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Independent draws whose repetitions are dropped: in order of first appearance they are draws for rule C."""
    distribution = DraftDistribution(q, replacement=False)
    for drawn, weight in independent(q, count, text):
        yield [(token, distribution) for token in dict.fromkeys(token for token, _ in drawn)], weight


def top(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule A: the likeliest tokens of the draft as point masses."""
    yield [(token, None) for token in np.argsort(-q, kind="stable")[:count].tolist()], 1.0


def _retrieved(q: Row, count: int, text: Text) -> list[int]:
    # Some fixed function of the text, as retrieval is; not the likeliest tokens.
    return [(2 * text[-1] + 1 + i) % len(q) for i in range(min(count, len(q)))]


def retrieval_then_drawn(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule M: point masses first, then draws from the draft without those tokens."""
    points = _retrieved(q, (count + 1) // 2, text)
    rest = without(q, points)
    if rest is None:
        yield [(token, None) for token in points], 1.0
        return
    for drawn, weight in no_replacement(rest, count - len(points), text):
        yield [(token, None) for token in points] + drawn, weight


def drawn_then_retrieval(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule M: independent draws first, then point masses, of which some repeat a draw."""
    for drawn, weight in independent(q, count // 2, text):
        yield drawn + [(token, None) for token in _retrieved(q, count - count // 2, text)], weight


def two_drafters(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rule M: draws without replacement from two distributions and a point mass, interleaved."""
    other = np.roll(q, 1)
    for drawn, weight in no_replacement(q, (count + 1) // 2, text):
        for drawn_other, weight_other in no_replacement(other, count // 2, text):
            mixed: Drawn = []
            for i in range(max(len(drawn), len(drawn_other))):
                mixed += drawn[i : i + 1] + drawn_other[i : i + 1]
            yield [*mixed[:1], (text[-1], None), *mixed[1:]], weight * weight_other


def chosen_or_drawn(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Rules A, C and M by turns: what decides at a node depends on the text, drawn tokens of the same tree included."""
    yield from (top, no_replacement, drawn_then_retrieval)[(len(text) + text[-1]) % 3](q, count, text)


DRAWS: dict[str, Siblings] = {
    "A_point_mass": top,
    "B_independent": independent,
    "B_deduplicated": deduplicated,
    "C_no_replacement": no_replacement,
    "M_retrieval_first": retrieval_then_drawn,
    "M_drawn_first": drawn_then_retrieval,
    "M_two_drafters": two_drafters,
    "M_by_node": chosen_or_drawn,
}
"""Every way to draft siblings that a rule must be right for."""

_LEAF: Shape = ()
SHAPES: dict[str, Shape] = {
    "chain of 3": (((_LEAF,),),),
    "2 siblings with 1 child each": ((_LEAF,), (_LEAF,)),
    "3 siblings, 2 children below the first": ((_LEAF, _LEAF), _LEAF, _LEAF),
    "children below the second sibling": (_LEAF, (_LEAF, _LEAF)),
}
"""Trees that rules are enumerated on."""
