"""Token trees: what they refuse, masks, depths, paths, truncation, and building without duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree, TreeBuilder

TREE = TokenTree((9, 1, 2, 3, 1, 4), (-1, 0, 0, 1, 2, 3), buckets=(0, 7, 8, 9, 5, 6))


@pytest.mark.parametrize(
    ("tokens", "parents"), [((), ()), ((1,), (0,)), ((1, 2), (-1,)), ((1, 2), (-1, 1)), ((1, 2, 3), (-1, 2, 0))]
)
def test_arrays_that_are_not_a_tree_are_refused(tokens: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        TokenTree(tokens, parents)


def test_a_node_sees_itself_and_its_ancestors_only() -> None:
    seen = [set(np.flatnonzero(row)) for row in TREE.ancestors]
    assert seen == [{0}, {0, 1}, {0, 2}, {0, 1, 3}, {0, 2, 4}, {0, 1, 3, 5}]
    np.testing.assert_array_equal(TokenTree.chain([1, 2, 3]).ancestors, np.tri(3, dtype=bool))


def test_depths_children_and_paths() -> None:
    assert TREE.depths.tolist() == [0, 1, 1, 2, 2, 3]
    assert TREE.children == ((1, 2), (3,), (4,), (5,), (), ())
    assert TREE.path(5) == [0, 1, 3, 5]
    assert TREE.path_tokens(5) == [1, 3, 4] and TREE.path_tokens(0) == []


def test_truncation_cuts_whole_levels_and_keeps_what_belongs_to_the_nodes() -> None:
    drawn = TokenTree(
        (9, 1, 2, 3),
        (-1, 0, 0, 1),
        drafts=(POINT_MASS, 0, 0, POINT_MASS),
        distributions=(DraftDistribution(np.full(4, 0.25), replacement=False),),
        buckets=(0, 4, 5, 6),
    )
    cut = drawn.truncated(1)
    assert (cut.tokens, cut.parents, cut.drafts, cut.buckets) == ((9, 1, 2), (-1, 0, 0), (POINT_MASS, 0, 0), (0, 4, 5))
    assert drawn.truncated(2) is drawn
    assert len(drawn.truncated(0)) == 1


def test_the_builder_merges_equal_children_and_keeps_the_first_source() -> None:
    builder = TreeBuilder(9)
    first = builder.add(0, 1, "a", bucket=3)
    assert builder.add(0, 1, "b") == first and builder.child(0, 1) == first and builder.child(0, 2) is None
    builder.add(first, 1, "b", bucket=2)
    tree = builder.build()
    assert tree.tokens == (9, 1, 1) and tree.buckets == (0, 3, 2)
    assert [tree.source_names[source] for source in tree.sources] == ["root", "a", "b"]
