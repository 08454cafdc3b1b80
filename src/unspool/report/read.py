"""Reads results that ``unspool prove``, ``bench`` and ``tradeoff`` wrote with ``--json``."""

from __future__ import annotations

from pathlib import Path

from unspool.bench.result import Bench
from unspool.bench.tradeoff import Tradeoff
from unspool.errors import UnspoolError
from unspool.proof.result import Proof
from unspool.storage.text_files import parse_json, read_text

_KINDS: dict[str, tuple[type[Proof | Bench | Tradeoff], int]] = {
    "proof": (Proof, 1),
    "bench": (Bench, 1),
    "tradeoff": (Tradeoff, 2),
    "frontier": (Tradeoff, 1),
}
"""Class and version of each kind of result; version 1 of a tradeoff had another kind."""


def read(path: Path) -> Proof | Bench | Tradeoff:
    """The result in a file.

    Raises:
        UnspoolError: if the file cannot be read, contains something else, or has an unknown version.
    """
    again = "make it again with --json of `unspool prove`, `bench` or `tradeoff`"
    try:
        data = parse_json(read_text(path))
    except ValueError as error:
        raise UnspoolError(f"{path} is {error}; {again}") from error
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnspoolError(f"{path} is not a result of unspool: its kind is {kind!r}, not one of {[*_KINDS]}; {again}")
    result, version = _KINDS[kind]
    if data.get("version") != version:
        raise UnspoolError(
            f"{path} has version {data.get('version')!r} of its format and this unspool reads {version}; "
            f"{again} of this version, or open it with the unspool that wrote it"
        )
    try:
        return result.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnspoolError(f"{path} is damaged ({type(error).__name__}: {error}); {again}") from error
