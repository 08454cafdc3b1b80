"""Gives file-backed memory back to the system.

OpenVINO maps the weight file and repacks it into memory of its own during the first pass; after that the mapped pages
are dead weight. The kernel would drop them only under pressure, and until then they count as this process's memory.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MADV_DONTNEED = 4
_EVERY = 0.02


@contextmanager
def released(file: Path) -> Iterator[None]:
    """While the block runs, keep dropping the pages of ``file`` that this process has mapped and read.

    Safe at any time: the mapping is read only, and a page that is needed again is read from the file again. Does
    nothing on systems other than Linux.
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
