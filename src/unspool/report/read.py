"""Results from files of ``unspool prove --json`` and ``unspool bench --json``."""

from __future__ import annotations

import json
from pathlib import Path

from unspool.bench.result import Bench
from unspool.errors import UnspoolError
from unspool.proof.result import Proof

VERSION = 1


def read(path: Path) -> Proof | Bench:
    """The result in a file.

    Raises:
        UnspoolError: if the file cannot be read, holds something else, or has a version that is not known.
    """
    again = "make it anew with `unspool prove --json` or `unspool bench --json`"
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnspoolError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except json.JSONDecodeError as error:
        raise UnspoolError(f"{path} is not JSON (line {error.lineno}: {error.msg}); {again}") from error
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in ("proof", "bench"):
        raise UnspoolError(f"{path} is no result of unspool: its kind is {kind!r}, not 'proof' or 'bench'; {again}")
    if data.get("version") != VERSION:
        raise UnspoolError(
            f"{path} has version {data.get('version')!r} of its format and this unspool reads {VERSION}; "
            f"{again} of this version, or open it with the unspool that wrote it"
        )
    try:
        return Proof.from_json(data) if kind == "proof" else Bench.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnspoolError(f"{path} is damaged ({type(error).__name__}: {error}); {again}") from error
