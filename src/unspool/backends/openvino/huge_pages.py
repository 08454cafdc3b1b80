"""Manages the memory pages of the weights.

OpenVINO maps the weight file and repacks it into its own memory during the first pass; the mapped pages are then dead
weight. The kernel drops them only under memory pressure; until then they count as this process's memory.

Its own memory has pages of 4 kB, and a pass reads all of it: address translation takes a tenth of the time (measured on
a virtual machine). Huge pages of 2 MB need few look-ups.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_MADV_DONTNEED = 4
_MADV_COLLAPSE = 25
_EVERY = 0.02
_HUGE = 2 << 20
_PART = 4 * _HUGE

Block = tuple[int, int]
"""First address, and the address after the last."""


@contextmanager
def released(file: Path) -> Iterator[None]:
    """While the block runs, keep dropping the pages of ``file`` that this process has mapped and read.

    Safe at any time: the mapping is read-only, and a dropped page is read from the file again when needed. No effect on
    systems other than Linux.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    stop = threading.Event()

    def drop() -> None:
        while not stop.wait(_EVERY):
            _drop(file)

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _drop(file)


def _drop(file: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = os.path.realpath(file)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(name):
            start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def moved_to_huge_pages(but: Sequence[Block] = ()) -> Iterator[None]:
    """Move this process's large memory blocks into huge pages: some 10 ms a step, a second for half a gigabyte.

    Their contents do not change. A part that the system does not move stays in place; before Linux 6.1 all do.

    Args:
        but: blocks, as returned by ``blocks``, that stay in place: those that existed before.
    """
    parts = [part for block in blocks() for part in _without(block, but)]
    if not parts:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for start, end in parts:
        for at in range(start, end, _PART):
            libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(min(_PART, end - at)), _MADV_COLLAPSE)
            yield


def blocks() -> list[Block]:
    """Start and end, on huge-page borders, of this process's anonymous memory that is mostly in use, ascending.

    Empty if the system does not say: on systems other than Linux, and in some sandboxes.
    """
    smaps = Path("/proc/self/smaps")
    if not smaps.is_file():
        return []
    found = []
    start = end = size = 0
    for line in smaps.read_text().splitlines():
        head, *rest = line.split()
        if not head.endswith(":"):
            low, high = (int(part, 16) for part in head.split("-"))
            start, end = -(-low // _HUGE) * _HUGE, high // _HUGE * _HUGE if rest[3] == "0" else 0  # 0: of no file
            size = high - low
        elif head == "Anonymous:" and end > start and int(rest[0]) << 10 > size // 2:
            found.append((start, end))
    return found


def _without(block: Block, others: Sequence[Block]) -> Iterator[Block]:
    """The parts of a block outside ``others``, which ascend."""
    at, end = block
    for low, high in others:
        if high > at and low < end:
            if low > at:
                yield at, low
            at = high
    if at < end:
        yield at, end
