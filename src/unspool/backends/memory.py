"""Memory and disk space needed to convert a model, checked before any work."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from unspool.errors import UnspoolError
from unspool.models.resolve import weight_files
from unspool.storage.cache import format_bytes

_CGROUP = Path("/sys/fs/cgroup")

# With weights in mapped files, memory holds the int8 weights, one float32 copy of the largest, and the libraries.
# Measured: 1.6 GB for 1.1 billion weights, 3.8 GB for 3.2 billion; as GGUF 3.4 GB for 0.63 billion.
_BYTES, _LARGEST, _REST = 1.05, 4, 700 << 20
_FLOAT32 = 4


def require_to_convert(path: Path, name: str) -> None:
    """Check that the available memory suffices to convert a model.

    Args:
        path: a GGUF file, or a directory in Hugging Face layout.
        name: of the model, for the message.

    Raises:
        UnspoolError: if it does not; with the needed and the available memory.
    """
    from unspool.backends import mapped  # imports torch

    sizes = tensor_sizes(path)
    if not sizes:
        return  # loading reports what is wrong with it
    whole, largest = sum(sizes.values()), max(sizes.values())
    # Read into memory first, then moved to files: de-quantised weights, and experts, which are stacked.
    copied = whole if path.is_file() else sum(size for name, size in sizes.items() if ".experts." in name)
    held = max(copied * _FLOAT32, whole * _BYTES) if mapped.IN_FILES else whole * (_FLOAT32 + _BYTES)
    needed = int(held + largest * _LARGEST + _REST)
    there = available()
    if needed > there:
        raise UnspoolError(
            f"converting {name} takes {format_bytes(needed)} of memory, {format_bytes(there)} are available; close "
            "other programs, use a smaller model, or convert on a machine with more memory"
        )


def disk_to_convert(path: Path) -> int:
    """Bytes of weight files during a conversion: the weights as loaded, plus a copy of those that are joined."""
    sizes = tensor_sizes(path)
    if path.is_file():  # de-quantised weights have one file each, removed when joined
        return (sum(sizes.values()) + max(sizes.values(), default=0)) * _FLOAT32
    return sum(sizes.values()) * 2 * _FLOAT32


def available() -> int:
    """Bytes that this process can still allocate, on the machine and within its container."""
    free = int(psutil.virtual_memory().available)
    left = [left for left in (_left(*files) for files in _limits()) if left is not None]
    return min([free, *left])


def _limits() -> list[tuple[Path, Path, Path]]:
    """Files with the limit, usage and statistics of each control group of this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            base, names = _CGROUP, ("memory.max", "memory.current", "memory.stat")
        elif "memory" in controllers.split(","):
            base, names = _CGROUP / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
        else:
            continue
        # In a container the path may be the host's; the group's files are then at the root.
        group = base / own.lstrip("/")
        groups = [group, *group.parents] if group.is_dir() else [base]
        found += [tuple(g / n for n in names) for g in groups if g == base or base in g.parents]
    return found  # type: ignore[return-value]


def _left(limit: Path, use: Path, statistics: Path) -> int | None:
    """Bytes that a control group still allows; None without a limit."""
    try:
        most, used = int(limit.read_text()), int(use.read_text())
        lines = (line.split() for line in statistics.read_text().splitlines())
        numbers = {key: int(value) for key, value in lines}
    except (OSError, ValueError):  # no such file, or it contains "max"
        return None
    # The page cache is released under memory pressure.
    return most - used + numbers.get("total_inactive_file", numbers.get("inactive_file", 0))


def tensor_sizes(path: Path) -> dict[str, int]:
    """Elements of each tensor of a model, from its files' headers; empty for files that loading refuses."""
    if path.is_file():
        from gguf import GGUFReader

        try:
            return {tensor.name: int(tensor.n_elements) for tensor in GGUFReader(path).tensors}
        except (ValueError, OSError, KeyError, IndexError):
            return {}
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    try:
        for file in weight_files(path):
            with safe_open(file, "numpy") as tensors:
                sizes |= {name: math.prod(tensors.get_slice(name).get_shape()) for name in tensors.offset_keys()}
    except (SafetensorError, OSError):
        return {}
    return sizes
