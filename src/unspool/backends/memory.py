"""Whether there is the memory that converting a model takes, told before any work."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from unspool.errors import UnspoolError
from unspool.storage.cache import format_bytes

_CGROUP = Path("/sys/fs/cgroup")

# As measured on random Llamas of 0.14 to 0.38 billion weights, converted to int8: all of them in float32 and in int8;
# beside them a copy of the largest tensor, and the libraries.
_BYTES, _LARGEST, _REST = 5, 4, 700 << 20


def require_to_convert(path: Path, name: str) -> None:
    """Check that a model can be converted in the memory that is available.

    Args:
        path: a GGUF file, or a directory in Hugging Face layout.
        name: of the model, for the message.

    Raises:
        UnspoolError: if it cannot: how much it takes and how much there is.
    """
    sizes = tensor_sizes(path)
    if not sizes:
        return  # loading tells what is wrong with it
    needed = int(sum(sizes) * _BYTES + max(sizes) * _LARGEST + _REST)
    there = available()
    if needed > there:
        raise UnspoolError(
            f"converting {name} takes {format_bytes(needed)} of memory, {format_bytes(there)} are available; end other "
            "programs, take a smaller model, or convert on a machine with more memory"
        )


def available() -> int:
    """Bytes that this process can still take: of the machine, and of the container it runs in."""
    free = int(psutil.virtual_memory().available)
    left = [left for left in (_left(*files) for files in _limits()) if left is not None]
    return min([free, *left])


def _limits() -> list[tuple[Path, Path, Path]]:
    """Files with the limit, the use and the statistics of each control group above this process."""
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
        # In a container the path can be that of the host; the group's files are then at the root.
        group = base / own.lstrip("/")
        groups = [group, *group.parents] if group.is_dir() else [base]
        found += [tuple(g / n for n in names) for g in groups if g == base or base in g.parents]
    return found  # type: ignore[return-value]


def _left(limit: Path, use: Path, statistics: Path) -> int | None:
    """What a control group may still take; None without a limit."""
    try:
        most, used = int(limit.read_text()), int(use.read_text())
        lines = (line.split() for line in statistics.read_text().splitlines())
        numbers = {key: int(value) for key, value in lines}
    except (OSError, ValueError):  # there is none, or it is "max"
        return None
    # Pages of files are given back when memory is wanted.
    return most - used + numbers.get("total_inactive_file", numbers.get("inactive_file", 0))


def tensor_sizes(path: Path) -> list[int]:
    """Elements of each tensor of a model, as its files' headers say; empty for files that loading refuses."""
    if path.is_file():
        from gguf import GGUFReader

        try:
            return [int(tensor.n_elements) for tensor in GGUFReader(path).tensors]
        except (ValueError, OSError, KeyError, IndexError):
            return []
    from safetensors import SafetensorError, safe_open

    files = sorted(path.glob("model*.safetensors")) or sorted(path.glob("*.safetensors"))
    sizes = []
    try:
        for file in files:
            with safe_open(file, "numpy") as tensors:
                sizes += [math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError):
        return []
    return sizes
