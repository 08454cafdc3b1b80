"""Where the OpenVINO backend stores which token."""

from __future__ import annotations

import numpy as np

from unspool.backends.openvino.sections import Sections

TREE = 128  # nodes behind the cache, at most


def _group(slot: int, total: int) -> int:
    """The group in which a slot of a product over ``total`` slots is summed."""
    return 0 if total <= 512 else slot // (512 if total < 1024 else 1024)


def test_a_token_is_summed_in_the_same_group_while_new_and_afterwards() -> None:
    sections = Sections(4096)
    for length in range(0, 4096, 5):
        section = sections.slots[length : length + sections.max_depth(length)]
        text = sections.slots[:length:16].tolist()
        groups = set()
        for capacity in sections.capacities(length):
            for nodes in (1, TREE):
                slots = {int(section[0]), int(section[-1]), capacity, capacity + nodes - 1}
                assert len({_group(slot, capacity + nodes) for slot in slots}) == 1, (length, capacity, nodes)
                groups.add(tuple(_group(slot, capacity + nodes) for slot in text))
        assert len(groups) == 1, length


def test_slots_ascend_and_fit_the_capacity() -> None:
    sections = Sections(2000)
    assert len(sections.slots) > 2000
    assert (np.diff(sections.slots) > 0).all()
    for length in range(2001):
        least, most = sections.capacities(length)
        assert least <= most
        assert least % 128 == 0 or least == most
        assert not length or sections.slots[length - 1] < least


def test_room_ends_with_the_section() -> None:
    sections = Sections(2000)
    assert [sections.max_depth(length) for length in (0, 383, 384, 765, 766, 1661, 1662)] == [
        384,
        1,
        382,
        1,
        896,
        1,
        896,
    ]
