"""Results from files of ``unspool prove``, ``bench`` and ``frontier`` with ``--json``."""

from __future__ import annotations

from pathlib import Path

from unspool.bench.result import Bench
from unspool.bench.tradeoff import Frontier
from unspool.errors import UnspoolError
from unspool.proof.result import Proof
from unspool.storage.text_files import parse_json, read_text

VERSION = 1


_KINDS: dict[str, type[Proof | Bench | Frontier]] = {"proof": Proof, "bench": Bench, "frontier": Frontier}


def read(path: Path) -> Proof | Bench | Frontier:
    """The result in a file.

    Raises:
        UnspoolError: if the file cannot be read, holds something else, or has a version that is not known.
    """
    again = "make it anew with --json of `unspool prove`, `bench` or `frontier`"
    try:
        data = parse_json(read_text(path))
    except ValueError as error:
        raise UnspoolError(f"{path} is {error}; {again}") from error
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnspoolError(f"{path} is no result of unspool: its kind is {kind!r}, not one of {[*_KINDS]}; {again}")
    if data.get("version") != VERSION:
        raise UnspoolError(
            f"{path} has version {data.get('version')!r} of its format and this unspool reads {VERSION}; "
            f"{again} of this version, or open it with the unspool that wrote it"
        )
    try:
        return _KINDS[kind].from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnspoolError(f"{path} is damaged ({type(error).__name__}: {error}); {again}") from error
