"""Two trees in one: a trie that loses nothing of the first, and exact under the lossless rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.pairwise import pairwise
from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import (
    SHAPES,
    Node,
    Siblings,
    Text,
    build,
    independent,
    joint,
    no_replacement,
    top,
    total_variation,
    trees,
)
from unspool.conformance.pairs import KINDS, pair
from unspool.engine.fuse import fuse
from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree, TreeBuilder
from unspool.methods.acceptance.lossless import Lossless

VOCAB = 4


def tree_of(*paths: tuple[int, ...], source: str = "draft", bucket: int = 0, root: int = 0) -> TokenTree:
    builder = TreeBuilder(root)
    for path in paths:
        node = 0
        for token in path:
            node = builder.add(node, token, source, bucket)
    return builder.build()


def paths_of(tree: TokenTree) -> set[tuple[int, ...]]:
    return {tuple(tree.path_tokens(node)) for node in range(len(tree))}


def random_tree(rng: np.random.Generator, size: int) -> TokenTree:
    """Siblings are distinct."""
    builder = TreeBuilder(0)
    for _ in range(size):
        builder.add(int(rng.integers(len(builder))), int(rng.integers(VOCAB)), "draft")
    return builder.build()


def accepted(tree: TokenTree, text: list[int]) -> int:
    """Drafts that greedy verification keeps where plain decoding takes ``text``."""
    node, count = 0, 0
    while (child := next((c for c in tree.children[node] if tree.tokens[c] == text[count]), None)) is not None:
        node, count = child, count + 1
    return count


@pytest.mark.parametrize("seed", range(20))
def test_the_union_is_a_trie_and_accepts_no_less_than_either(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_tree(rng, 12), random_tree(rng, 12)
    fused = fuse(first, second, 100)
    assert paths_of(fused) == paths_of(first) | paths_of(second)
    assert len(paths_of(fused)) == len(fused)
    for _ in range(50):
        text = rng.integers(VOCAB, size=20).tolist()
        assert accepted(fused, text) == max(accepted(first, text), accepted(second, text))


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_cuts_the_deepest_of_the_second(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_tree(rng, 8), random_tree(rng, 15)
    whole = fuse(first, second, 100)
    for budget in range(1, len(whole) + 1):
        fused = fuse(first, second, budget)
        size = max(len(first), budget)
        assert (fused.tokens, fused.parents) == (whole.tokens[:size], whole.parents[:size])
    depths = whole.depths[len(first) :].tolist()
    assert depths == sorted(depths)


def test_what_is_known_of_a_node_stays() -> None:
    """Sources and buckets go along; a node of both is the first's; draws keep handle, order and duplicates."""
    q = DraftDistribution(np.full(VOCAB, 0.25), replacement=True)
    first = TokenTree((0, 2, 2, 1), (-1, 0, 0, 1), (0, 1, 1, 1), ("root", "model"), (-1, 0, 0, -1), (q,), (0, 5, 6, 7))
    second = tree_of((2, 1, 3), (3,), source="store", bucket=9)
    fused = fuse(first, second, 10)
    assert fused.tokens == (0, 2, 2, 1, 3, 3)
    assert fused.parents == (-1, 0, 0, 1, 0, 3)  # below the first of the equal siblings
    assert [fused.source_names[source] for source in fused.sources] == ["root", *["model"] * 3, *["store"] * 2]
    assert fused.drafts == (-1, 0, 0, -1, POINT_MASS, POINT_MASS) and fused.distributions == (q,)
    assert fused.buckets == (0, 5, 6, 7, 9, 9)


def test_what_cannot_be_fused_is_refused() -> None:
    q = DraftDistribution(np.full(VOCAB, 0.25), replacement=True)
    drawn = TokenTree((0, 2), (-1, 0), drafts=(-1, 0), distributions=(q,))
    with pytest.raises(ValueError, match="no draws"):
        fuse(tree_of((1,)), drawn, 10)
    with pytest.raises(ValueError, match="different roots"):
        fuse(tree_of((1,)), tree_of((1,), root=3), 10)


# Exactness: every draw of the first tree, fused with what was retrieved, and every outcome of the rule.


def fixed(first: TokenTree) -> TokenTree:
    """Chosen by the text alone: some of it will be drafted too, and some of that only in part."""
    return tree_of((1, 2, 0), (2, 1), (0,))


def informed(first: TokenTree) -> TokenTree:
    """Chosen by looking at what was drawn, which pruning by a drawn tree would do."""
    if len(first) == 1:
        return tree_of((1,))
    path = first.path_tokens(len(first) - 1)
    return tree_of((*path, path[0]), ((path[0] + 1) % 3,), (path[-1], 2))


Retrieval = Callable[[TokenTree], TokenTree]
Fusion = Callable[[TokenTree, TokenTree], TokenTree]


def distance(
    kind: str, siblings: Siblings, retrieved: Retrieval, shape: str, fusion: Fusion, vocab_size: int = 3
) -> float:
    """Total variation between three tokens of plain sampling and of one round with fused trees."""
    target, draft = pair(kind, vocab_size, seed=1)
    prompt: Text = (1,)

    def drafts(model: ToyModel) -> Iterator[tuple[TokenTree, float]]:
        for first, weight in trees(model, prompt, SHAPES[shape], siblings):
            second = retrieved(first)
            yield fusion(first, TokenTree((1, *second.tokens[1:]), second.parents)), weight

    return total_variation(joint(Lossless(), target, prompt, drafts(draft), 3), target.distribution(3, prompt))


@pytest.mark.parametrize(
    ("kind", "siblings", "retrieved", "shape"),
    pairwise(KINDS, [independent, no_replacement, top], [fixed, informed], SHAPES),
)
def test_fused_drafts_keep_the_distribution(kind: str, siblings: Siblings, retrieved: Retrieval, shape: str) -> None:
    for budget in (4, 5, 100):  # also where the budget cuts the second tree
        assert distance(kind, siblings, retrieved, shape, lambda a, b, n=budget: fuse(a, b, n)) < 1e-12


def nodes_of(tree: TokenTree) -> list[Node]:
    known = [None if draft == POINT_MASS else tree.distributions[draft] for draft in tree.drafts]
    return list(zip(tree.tokens, tree.parents, known, strict=True))


def as_if_drawn(first: TokenTree, second: TokenTree) -> TokenTree:
    """Retrieved siblings are tested with the distribution of the drawn ones."""
    fused = fuse(first, second, 100)
    nodes = nodes_of(fused)
    for node in range(len(first), len(fused)):
        token, parent, _ = nodes[node]
        drawn = [nodes[child][2] for child in fused.children[parent] if nodes[child][2] is not None]
        if drawn and drawn[0] is not None and drawn[0].q[token] > 0:
            nodes[node] = (token, parent, drawn[0])
    return build(nodes)


def retrieved_first(first: TokenTree, second: TokenTree) -> TokenTree:
    """Retrieved siblings come first, and the drawn ones still say that they come from the whole distribution."""
    nodes = nodes_of(second)
    place = {0: 0}
    child = {(parent, token): node for node, (token, parent, _) in enumerate(nodes)}
    for node, (token, parent, known) in enumerate(nodes_of(first)[1:], 1):
        key = (place[parent], token)
        if key not in child:
            child[key] = len(nodes)
            nodes.append((token, place[parent], known))
        place[node] = child[key]
    return build(nodes)


def drawn_again(first: TokenTree, second: TokenTree) -> TokenTree:
    """A drawn token that was retrieved too loses its draw."""
    nodes = nodes_of(first)
    both = paths_of(second)
    kept = [None if tuple(first.path_tokens(node)) in both else known for node, (*_, known) in enumerate(nodes)]
    made = build([(token, parent, known) for (token, parent, _), known in zip(nodes, kept, strict=True)])
    return fuse(made, second, 100)


@pytest.mark.parametrize(
    ("fusion", "siblings", "shape"),
    pairwise(
        [as_if_drawn, retrieved_first, drawn_again],
        [independent, no_replacement],
        ["chain of 3", "2 siblings with 1 child each"],
    ),
)
def test_the_enumeration_sees_wrong_fusions(fusion: Fusion, siblings: Siblings, shape: str) -> None:
    """A vocabulary of 5, so that the draws do not cover it: the distances are 0.036 to 0.197."""
    assert distance("far", siblings, fixed, shape, fusion, vocab_size=5) > 0.03
