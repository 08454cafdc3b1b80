"""The header of a GGUF file: its settings and the names of its tensors, checked against the file's length.

``gguf.GGUFReader`` takes seconds for a vocabulary and does not check the length. Imports neither torch nor
transformers.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError, UnsupportedError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's shape in torch's order, llama.cpp's number of its type, and its byte range."""

    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of a GGUF.

    Attributes:
        path: of the file.
        fields: every setting by key: numbers, booleans, strings, or lists of these.
        tensors: by name.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture; empty if the file does not give it."""
        return str(self.fields.get("general.architecture", ""))

    def settings(self) -> dict[str, Any]:
        """The architecture's settings, without its name as prefix: ``{"rope.freq_base": 10000.0, ...}``."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): value for key, value in self.fields.items() if key.startswith(prefix)}

    def values(self, name: str) -> NDArray[np.float32]:
        """A tensor's values, de-quantised."""
        from gguf import GGMLQuantizationType, dequantize

        tensor = self.tensors[name]
        data = np.fromfile(self.path, np.uint8, tensor.size, offset=tensor.start)
        values: NDArray[np.float32] = dequantize(data, GGMLQuantizationType(tensor.kind))
        return values.reshape(tensor.shape)


def read(path: Path) -> GgufHeader:
    """The header of a GGUF whose file contains all bytes of its tensor table.

    Raises:
        UnspoolError: if the file is not a GGUF, is truncated, is one part of several, or is of an unknown kind.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UnspoolError(f"{path} is not a GGUF file: it does not begin with the letters GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header, needed = _Walk(data, path).header()
            except struct.error as error:
                raise UnspoolError(
                    f"truncated GGUF: {path} ends inside its header, after {len(data)} bytes; download it again"
                ) from error
            except (ArithmeticError, RecursionError, TypeError, ValueError) as error:  # impossible numbers
                raise UnspoolError(f"{path} is damaged: its header cannot be read; download it again") from error
            if needed > len(data):
                raise UnspoolError(
                    f"truncated GGUF: {path} has {len(data)} bytes, {needed - len(data)} bytes are missing; "
                    "download it again"
                )
    return header


class _Walk:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 4

    def header(self) -> tuple[GgufHeader, int]:
        """The header, and the minimum length of the file. ``struct.error`` if the header is truncated."""
        from gguf.constants import GGML_QUANT_SIZES

        version = self.number("I")
        if version not in (2, 3):
            found = f"version {version}" if version < 1 << 16 else "big-endian"
            raise UnsupportedError(
                f"{self.path} is a GGUF of an unknown kind ({found}); unspool reads versions 2 and 3, little-endian: "
                "convert it again with a current llama.cpp"
            )
        count, pairs = self.number("Q"), self.number("Q")
        fields: dict[str, Any] = {}
        for _ in range(pairs):
            key = self.string()
            fields[key] = self.value(self.number("I"))
        if fields.get("split.count", 0) > 1:
            raise UnsupportedError(f"{self.path} is one part of a split GGUF; join it with llama-gguf-split --merge")
        tensors: dict[str, GgufTensor] = {}
        for _ in range(count):
            name = self.string()
            shape = tuple(self.number("Q") for _ in range(self.number("I")))
            kind, offset = self.number("I"), self.number("Q")
            if kind not in GGML_QUANT_SIZES:
                raise UnsupportedError(
                    f"{self.path} has tensors of the unknown type {kind}; install a newer gguf package"
                )
            block, block_bytes = GGML_QUANT_SIZES[kind]
            tensors[name] = GgufTensor(shape[::-1], kind, offset, prod(shape) // block * block_bytes)
        alignment = fields.get("general.alignment", 32)
        begin = -(-self.at // alignment) * alignment
        placed = {name: replace(tensor, start=begin + tensor.start) for name, tensor in tensors.items()}
        end = max((tensor.start + tensor.size for tensor in placed.values()), default=begin)
        return GgufHeader(self.path, fields, placed), end

    def number(self, code: Literal["I", "Q"]) -> int:
        value: int = self.take(code, 1)[0]
        return value

    def take(self, code: str, n: int) -> tuple[Any, ...]:
        form = f"<{n}{code}"
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self) -> str:
        length = self.number("Q")
        if self.at + length > len(self.data):
            raise struct.error("past the end of the file")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def strings(self, n: int) -> list[str]:
        """Read n strings without a call for each: vocabularies have a hundred thousand."""
        data, at, texts, length_of = self.data, self.at, [], struct.Struct("<Q").unpack_from
        for _ in range(n):
            (length,) = length_of(data, at)
            at += 8 + length
            texts.append(data[at - length : at].decode("utf-8", "replace"))
        if at > len(data):
            raise struct.error("past the end of the file")
        self.at = at
        return texts

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind], 1)[0]
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, n = self.number("I"), self.number("Q")
            if item in _SCALARS:
                return list(self.take(_SCALARS[item], n))
            return self.strings(n) if item == _STRING else [self.value(item) for _ in range(n)]
        raise UnspoolError(f"{self.path} is damaged: its header contains a value of the unknown type {kind}")
