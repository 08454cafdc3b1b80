"""The files of a datastore: a directory that appears only when complete and is mapped into memory.

``tokens.npy`` (int32: the documents one after the other, each ended by -1), ``starts.npy`` (int64: where they begin),
``suffixes.npy`` (int32 or int64: the suffix array) and ``header.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError
from unspool.storage import cache as store
from unspool.storage.text_files import check_directory, parse_json, read_text

FORMAT_VERSION = 1

_KIND = "unspool datastore"
_ARRAYS = {"tokens": ("int32",), "starts": ("int64",), "suffixes": ("int32", "int64")}
_FIELDS = {"model": str, "vocabulary": str, "largest": int, "sizes": dict}

Arrays = dict[str, NDArray[Any]]


def check_new(path: Path) -> None:
    """Refuse a directory that cannot be made, before any work.

    Raises:
        UnspoolError: says what to do.
    """
    if path.exists():
        raise UnspoolError(f"{path} exists; remove it, or give the datastore another name")
    check_directory(path)


def write(path: Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a new directory; an interrupted write leaves nothing.

    Args:
        header: the fields ``model``, ``vocabulary`` and ``largest``.

    Raises:
        UnspoolError: if ``path`` exists or cannot be written.
    """
    check_new(path)
    sizes = {name: len(values) for name, values in arrays.items()}
    content = {"kind": _KIND, "version": FORMAT_VERSION, **header, "sizes": sizes}
    try:
        with store.atomic_directory(path) as directory:
            for name in _ARRAYS:
                np.save(directory / f"{name}.npy", arrays[name], allow_pickle=False)
            (directory / "header.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnspoolError(f"cannot write the datastore to {path}: {error.strerror or error}") from error


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """The header and the mapped arrays.

    Raises:
        UnspoolError: if the directory is not a datastore, is damaged, or has another format.
    """
    header = _header(path)
    sizes = header["sizes"]
    return header, {name: _mapped(path / f"{name}.npy", sizes.get(name), dtypes) for name, dtypes in _ARRAYS.items()}


def _header(path: Path) -> dict[str, Any]:
    file = path / "header.json"
    if not file.is_file():
        raise UnspoolError(f"{path} is not a datastore: it has no header.json; make one with `unspool datastore build`")
    try:
        header = parse_json(read_text(file))
    except (OSError, UnspoolError, ValueError, RecursionError) as error:
        raise _damaged(file) from error
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        raise UnspoolError(f"{path} is not a datastore; make one with `unspool datastore build`")
    if header.get("version") != FORMAT_VERSION:
        raise UnspoolError(
            f"{path} is a datastore of format {header.get('version')}, but this unspool reads format {FORMAT_VERSION}; "
            "rebuild it with `unspool datastore build`"
        )
    if any(not isinstance(header.get(name), kind) for name, kind in _FIELDS.items()):
        raise _damaged(file)
    return header


def _mapped(file: Path, size: object, dtypes: tuple[str, ...]) -> NDArray[Any]:
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged bytes can make numpy's header reader raise anything
        raise _damaged(file) from error
    if not isinstance(values, np.ndarray) or values.shape != (size,) or values.dtype.name not in dtypes:
        raise _damaged(file)
    return np.asarray(values)  # slices of np.memmap itself are several times slower


def _damaged(file: Path) -> UnspoolError:
    return UnspoolError(f"{file} is missing or damaged; rebuild the datastore with `unspool datastore build`")
