"""Keeps weights in memory-mapped files while a model is converted.

The system drops pages of a file when memory is short and reads them again on use, so a conversion needs little more
memory than its result. No value changes: every 16-bit number is also a float32 number.

The files are unlinked once they are mapped, so they disappear with the weights or the process. Windows cannot unlink a
mapped file; there the weights stay in memory.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unspool.models.resolve import weight_files

IN_FILES = os.name != "nt"

_SMALL = 1 << 16  # elements; smaller tensors stay in memory
_WIDENED = ("BF16", "F16")


def joined(parts: Sequence[torch.Tensor], directory: Path) -> torch.Tensor:
    """The tensors concatenated along their first dimension, in float32.

    Args:
        directory: of the file, until it is unlinked.
    """
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if not IN_FILES or math.prod(shape) < _SMALL:
        return torch.cat([part.detach().float() for part in parts])
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        # Written, not mapped for writing: a full disk is then an error instead of a crash.
        for part in parts:
            _write(part.detach().float(), file)
        file.flush()
        return torch.from_file(file.name, shared=False, size=math.prod(shape), dtype=torch.float32).view(shape)


def move(model: torch.nn.Module, directory: Path, mapped: Collection[str] = ()) -> None:
    """Move the weights of a model to files, one at a time, in float32.

    Args:
        mapped: names of weights that are in files already.
    """
    for name, parameter in model.named_parameters():
        if name not in mapped and parameter.ndim:
            parameter.data = joined([parameter.data], directory)


@contextmanager
def widened(path: Path, directory: Path) -> Iterator[tuple[Path, set[str]]]:
    """A temporary copy of the checkpoint in ``path`` with its 16-bit weights in float32, for loading it.

    transformers maps weights of the requested dtype, and would copy others.

    Yields:
        its directory, and the names of the tensors that will be mapped as weights of the same name.
    """
    if not IN_FILES:
        yield path, set()
        return
    from safetensors import safe_open

    target = directory / "float32"
    target.mkdir()
    names: set[str] = set()
    chosen = weight_files(path)
    try:
        for file in path.iterdir():
            if file in chosen:
                with safe_open(file, "pt") as tensors:
                    kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.offset_keys()}
                    names |= {name for name, kind in kinds.items() if kind in ("F32", *_WIDENED)}
                    if any(kind in _WIDENED for kind in kinds.values()):
                        _widen(tensors, kinds, target / file.name)
                        continue
            (target / file.name).symlink_to(file.absolute())
        yield target, names
    finally:
        shutil.rmtree(target)


def _widen(tensors: Any, kinds: dict[str, str], target: Path) -> None:
    """Write a safetensors file: the header's length, the header, and the tensors in its order."""
    # Other dtypes last, so that float32 stays aligned.
    order = sorted(kinds, key=lambda name: kinds[name] not in _WIDENED)
    header: dict[str, Any] = {"__metadata__": tensors.metadata() or {}}
    at = 0
    for name in order:
        tensor = tensors.get_tensor(name)
        wide = kinds[name] in _WIDENED
        size = tensor.nbytes * 2 if wide else tensor.nbytes
        kind = "F32" if wide else kinds[name]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            tensor = tensors.get_tensor(name)
            _write(tensor.float() if kinds[name] in _WIDENED else tensor, file)


def _write(tensor: torch.Tensor, file: Any) -> None:
    if tensor.numel():
        file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy())
