"""Memory in huge pages."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from unspool.backends.openvino.huge_pages import _without, blocks, moved_to_huge_pages

MB = 1 << 20


def _huge_kb() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what huge pages hold is read from /proc")
def test_large_blocks_move_and_keep_what_they_hold(tmp_path: Path) -> None:
    text = bytes(range(256)) * (16 * MB // 256)
    block = mmap.mmap(-1, len(text), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(text)
    (tmp_path / "file").write_bytes(text)
    with (tmp_path / "file").open("r+b") as file:
        copy_on_write = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)  # a library's data is such a block
        copy_on_write.write(text)
        before = _huge_kb()
        list(moved_to_huge_pages(but=blocks()))
        assert _huge_kb() - before < 8 * 1024, "what was there before stays"
        steps = sum(1 for _ in moved_to_huge_pages())
        moved = _huge_kb() - before
        assert block[:] == copy_on_write[:] == text
        copy_on_write.close()
    block.close()
    assert steps >= 2, "a step is short"
    if not moved:
        pytest.skip("this kernel does not move memory into huge pages")
    assert moved >= 12 * 1024


def test_what_is_left_of_a_block() -> None:
    assert list(_without((0, 10), [(2, 4), (6, 12)])) == [(0, 2), (4, 6)]
    assert list(_without((5, 10), [(0, 6), (8, 9), (20, 30)])) == [(6, 8), (9, 10)]
    assert list(_without((5, 10), [(0, 3)])) == [(5, 10)]
    assert list(_without((5, 10), [(0, 30)])) == []
