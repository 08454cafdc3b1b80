"""The conversions in the cache: each one made once, whole, and with a manifest that says of what it was made.

``converted/<content key>/<format and version>/`` holds the files and ``manifest.json``: the source, and the size of
every file and the SHA-256 of small ones. What does not match its manifest is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.models.resolve import ModelSource
from unspool.storage import cache as store
from unspool.storage.text_files import reason

MANIFEST = "manifest.json"

_STREAM = "iostream error"  # what OpenVINO says of a full disk, after removing the file that filled it

_SMALL = 16 << 20  # bytes of files that are read at every start: some milliseconds


def ensure(source: ModelSource, name: str, make: Callable[[Path], object], verb: str = "converts") -> Path:
    """The directory ``name`` of a model's conversions, made on first use. Safe when two processes ask at once.

    Args:
        make: writes the files into an empty directory; nothing stays if it raises.
        verb: what another process does that is waited for.

    Raises:
        UnspoolError: if ``make`` raises, or the disk is full, or the cache cannot be written.
    """
    final = store.converted_dir() / source.key / name
    if is_whole(final):
        return final
    with store.lock(f"convert-{source.key}", f"another process {verb} {source.name}; waiting for it"):
        if is_whole(final):
            return final
        if final.exists():
            store.say(f"{final} is damaged or of an older unspool; making it again")
            store.remove(final)
        with store.atomic_directory(final) as directory:
            try:
                make(directory)
            except UnspoolError:
                raise
            except Exception as error:  # converting runs several libraries, which may raise anything
                if _STREAM in str(error) or store.is_full(error, directory):
                    raise store.full_disk(directory.parent) from error
                raise UnspoolError(f"cannot convert {source.name}: {reason(error)}") from error
            sign(directory, source)
    return final


def is_whole(directory: Path) -> bool:
    """Whether a conversion has its manifest, and every file of it in the right size; small ones are read, too."""
    manifest = read_manifest(directory)
    if manifest is None:
        return False
    try:
        return all(_fact(directory / name) == fact for name, fact in manifest["files"].items())
    except OSError:
        return False


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a conversion; None if there is none, or it is damaged."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and isinstance(manifest.get("name"), str):
        return manifest
    return None


def sign(directory: Path, source: ModelSource) -> None:
    """Write the manifest of a conversion as it is now."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "name": source.name,
        "path": None if source.model else str(source.path),
        "files": {path.relative_to(directory).as_posix(): _fact(path) for path in files},
    }
    with store.atomic_file(directory / MANIFEST) as file:
        file.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _fact(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    return {"size": size, "sha256": store.sha256_of(file)} if size <= _SMALL else {"size": size}


@dataclass(frozen=True)
class Conversion:
    """One conversion, or the rest of one.

    Attributes:
        key: of the model that it was made of.
        format: weight format and version.
        name, path: of the model, and where it was; None where no manifest of this model says so.
        signed: whether it has a manifest of its own.
        size: bytes on the disk.
        directory: of the conversion.
    """

    key: str
    format: str
    name: str | None
    path: str | None
    signed: bool
    size: int
    directory: Path


def every() -> Iterator[Conversion]:
    """All that the cache holds of conversions, what is being written included."""
    root = store.converted_dir()
    for model in sorted(root.iterdir()) if root.is_dir() else []:
        manifests = {path: read_manifest(path) for path in sorted(model.iterdir())} if model.is_dir() else {}
        told = next((manifest for manifest in manifests.values() if manifest), {})
        for path, manifest in manifests.items():
            about = manifest or told
            size = store.size_on_disk(path)
            yield Conversion(
                model.name, path.name, about.get("name"), about.get("path"), manifest is not None, size, path
            )
