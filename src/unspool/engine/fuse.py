"""Two drafts in one tree: the second is laid over the first along their longest common prefixes."""

from __future__ import annotations

from unspool.engine.tree import POINT_MASS, TokenTree


def fuse(first: TokenTree, second: TokenTree, budget: int) -> TokenTree:
    """The nodes of ``first``, and those of ``second`` that it lacks, as branches of the deepest node that both share.

    Nodes of ``first`` keep their indices, their draws and what they say of themselves, also where ``second`` holds the
    same path: nothing that was drawn is moved, merged or cut. Those of ``second`` come after them, level by level, in
    its own order. So at every node drawn children are tested before chosen ones. That is exact under the lossless rule
    whatever ``second`` was chosen by, the draws of ``first`` included, and no distribution needs a change.

    Args:
        first: any tree.
        second: a tree of chosen tokens (point masses) with the same root.
        budget: most nodes of the result, root included. It cuts the deepest nodes of ``second``, never ``first``.

    Raises:
        ValueError: if the roots differ, or if ``second`` holds draws: to merge or cut one would bias the output.
    """
    if first.tokens[0] != second.tokens[0]:
        raise ValueError("trees of different roots cannot be fused")
    if any(draft != POINT_MASS for draft in second.drafts):
        raise ValueError("the second tree of a fusion must hold chosen tokens only, no draws")
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
