"""What was trained for a method: one file of tensors that says what it is, which models it belongs to, and how it came.

A safetensors file whose metadata is the header ``{kind, method, version, belongs_to, trained_with}``. Its name ends in
``.artifact``, so that nothing takes it for a model's weights where it is beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json

if TYPE_CHECKING:
    from unspool.methods.resources import Resources

VERSION = 1
"""Of the header; raised whenever what it says, or what tensors mean, changes."""

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Artifact:
    """Something trained.

    Attributes:
        kind: what it is, for messages: ``"acceptance head"``.
        method: name of the method that reads it.
        belongs_to: for each model, the target first, as much of its identity (``models.identity.loaded``) as matters:
            the key of its content alone, or with backend and weight format.
        tensors: arrays of numbers by name.
        trained_with: options, data and figures; plain data.
        version: of the header.
    """

    kind: str
    method: str
    belongs_to: tuple[str, ...]
    tensors: Tensors
    trained_with: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; one of that name is replaced in one step.

        Raises:
            UnspoolError: if it cannot be written.
        """
        from safetensors.numpy import save

        header = {
            "kind": self.kind,
            "method": self.method,
            "version": self.version,
            "belongs_to": self.belongs_to,
            "trained_with": self.trained_with,
        }
        tensors = {name: np.asarray(tensor, order="C") for name, tensor in self.tensors.items()}
        metadata = {"artifact": json.dumps(header)}
        arrays.replace(path, self.kind, lambda part: part.write_bytes(save(tensors, metadata)))

    @classmethod
    def load(cls, path: Path | str, method: str) -> Artifact:
        """Read a file that ``save`` wrote, or the one of the method in a directory.

        Args:
            method: that is going to use it.

        Raises:
            UnspoolError: if it cannot be read, is something else, of another method or of another version.
        """
        file = file_of(Path(path), method)
        try:
            stat = file.stat()
            made = _load(file, stat.st_ctime_ns, stat.st_ino)
        except OSError as error:
            raise UnspoolError(f"cannot read {file}: {error.strerror or error}; {_train(method)}") from error
        except ValueError as error:
            raise UnspoolError(f"{file} is not a trained part ({error}); {_train(method)}") from error
        if made.method != method:
            raise UnspoolError(f"{file} is the {made.kind} of {made.method}, not of {method}; {_train(method)}")
        if made.version != VERSION:
            raise UnspoolError(
                f"{file} is of version {made.version} and this unspool reads {VERSION}; {_train(method)} again"
            )
        return made

    def check(self, resources: Resources) -> None:
        """Refuse models that it was not trained for. Models whose identity is not known are not checked.

        Raises:
            UnspoolError: naming what it was trained for.
        """
        models = resources.keys()
        if not models:
            return
        if len(models) < len(self.belongs_to) or not all(map(_is_of, models, self.belongs_to)):
            names = self.trained_with.get("models")
            those = " and ".join(map(str, names)) if isinstance(names, list) else "other models"
            raise UnspoolError(
                f"the {self.kind} was trained for {those}, not for these models or weights; {_train(self.method)} "
                "for these"
            )

    def tensor(self, name: str, *shape: int | None) -> NDArray[Any]:
        """The tensor of a name; None is any size.

        Raises:
            UnspoolError: if there is none, or its shape is another.
        """
        found = self.tensors.get(name)
        if (
            found is None
            or found.ndim != len(shape)
            or any(wanted not in (None, size) for wanted, size in zip(shape, found.shape, strict=True))
        ):
            raise UnspoolError(f"this {self.kind} has no fitting tensor {name!r}; {_train(self.method)} again")
        return found


def file_of(path: Path, method: str) -> Path:
    """The file that a path means: itself, or the method's in a directory."""
    return path / f"{method}.artifact" if path.is_dir() else path


def _train(method: str) -> str:
    return f"train one with `unspool train {method}`"


def _is_of(model: str, wanted: str) -> bool:
    return f"{model} ".startswith(f"{wanted} ")


@lru_cache(maxsize=8)  # a drafter is built for every request
def _load(path: Path, changed: int, inode: int) -> Artifact:
    """Raises ``ValueError`` for what is no artifact."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = parse_json((file.metadata() or {}).get("artifact", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError("damaged, or of another program") from error
    wanted = {"kind": str, "method": str, "version": int, "belongs_to": list, "trained_with": dict}
    if not isinstance(header, dict) or {name: type(value) for name, value in header.items()} != wanted:
        raise ValueError("without its header")
    belongs_to = tuple(map(str, header.pop("belongs_to")))
    return Artifact(**header, belongs_to=belongs_to, tensors=tensors)
