"""Merges two drafts into one tree: the second is laid over the first along their longest common prefixes."""

from __future__ import annotations

from unspool.engine.tree import POINT_MASS, TokenTree


def fuse(first: TokenTree, second: TokenTree, budget: int) -> TokenTree:
    """The nodes of ``first``, and those that only ``second`` has, as branches of the deepest shared node.

    Nodes of ``first`` keep their indices, draws, sources and buckets, even if ``second`` has the same path: no drawn
    node is moved, merged or cut. Nodes of ``second`` follow, level by level, in their own order. So at every node,
    drawn children are tested before chosen ones. This is exact under the lossless rule however ``second`` was chosen,
    even from the draws of ``first``, and no distribution has to change.

    Args:
        first: any tree.
        second: a tree of chosen tokens (point masses) with the same root.
        budget: maximum number of nodes, root included. Cuts the deepest nodes of ``second``, never ``first``.

    Raises:
        ValueError: if the roots differ, or if ``second`` contains draws: merging or cutting one would bias the output.
    """
    if first.tokens[0] != second.tokens[0]:
        raise ValueError("trees with different roots cannot be fused")
    if any(draft != POINT_MASS for draft in second.drafts):
        raise ValueError("the second tree of a fusion must contain chosen tokens only, no draws")
    tokens, parents, buckets, sources = (
        list(values) for values in (first.tokens, first.parents, first.buckets, first.sources)
    )
    names = list(dict.fromkeys((*first.source_names, *second.source_names)))
    child: dict[tuple[int, int], int] = {}
    for node in range(1, len(first)):
        child.setdefault((first.parents[node], first.tokens[node]), node)
    place = {0: 0}  # node of the second tree -> node of the result
    depths = second.depths
    for node in sorted(range(1, len(second)), key=lambda node: int(depths[node])):
        parent = place.get(second.parents[node])
        if parent is None:
            continue
        known = child.get((parent, second.tokens[node]))
        if known is None:
            if len(tokens) >= budget:
                continue
            known = child[parent, second.tokens[node]] = len(tokens)
            tokens.append(second.tokens[node])
            parents.append(parent)
            buckets.append(second.buckets[node])
            sources.append(names.index(second.source_names[second.sources[node]]))
        place[node] = known
    return TokenTree(
        tuple(tokens),
        tuple(parents),
        tuple(sources),
        tuple(names),
        first.drafts + (POINT_MASS,) * (len(tokens) - len(first)),
        first.distributions,
        tuple(buckets),
    )
