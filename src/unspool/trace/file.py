"""Trace files: the events of one sequence, one per line, with the texts that a viewer needs. The format is described in
``docs/trace.md`` and defined by ``trace.schema.json``.

A file is written line by line during decoding, so a truncated file is readable up to the cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from unspool import __version__
from unspool.engine.trace import TRACE_VERSION, CanvasEvent, EndEvent, Event, StepEvent, to_json
from unspool.errors import UnspoolError
from unspool.models.tokenizer import Tokenizer
from unspool.storage.text_files import check_file, unique
from unspool.trace.schema import problem_of

_HEX_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_LONE_BYTES = re.compile("[\udc80-\udcff]+")


@dataclass(frozen=True)
class Trace:
    """A trace that was read from a file.

    Attributes:
        header: the first line.
        events: the other lines.
        truncated: whether the file stops before its end event.
    """

    header: dict[str, Any]
    events: list[dict[str, Any]]
    truncated: bool


def make_header(model: str, prompt_token_ids: Sequence[int], tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """The first line of a trace: the model, the prompt and the vocabulary."""
    return {
        "kind": "header",
        "version": TRACE_VERSION,
        "unspool": __version__,
        "model": model,
        "prompt_token_ids": list(prompt_token_ids),
        "prompt": tokenizer.decode(prompt_token_ids, skip_special_tokens=False),
        "vocabulary": vocab_size,
    }


class TraceWriter:
    """Writes the events of one sequence as they happen; a context manager that closes the file.

    The file is created, or replaced, at the first event. It is deliberately not atomic: a run that is stopped leaves a
    trace up to that point.

    Args:
        path: the file.
        header: from ``make_header``.
        tokenizer: of the model.

    Raises:
        UnspoolError: at once if a file cannot be written there; later if the disk is full, or if events of several
            sequences arrive.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        check_file(path)
        self.path = path
        self._header = header
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream(tokenizer.context(header["prompt_token_ids"]))
        self._texts: dict[int, str] = {}
        self._file: TextIO | None = None
        self._row: int | None = None

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, event: Event) -> None:
        """Write one event; it is in the file when this returns."""
        if self._row not in (None, event.row):
            raise UnspoolError("a trace file contains one sequence; write one file for each row of a batch")
        self._row = event.row
        line = to_json(event)
        if isinstance(event, StepEvent):
            ids = {*event.tokens, *event.emitted}
            ids.update(token for best in event.alternatives or () for token, _ in best)
            line["texts"] = {str(token): self._text(token) for token in sorted(ids)}
            line["pieces"] = [self._stream.push(token) for token in event.emitted]
        elif isinstance(event, CanvasEvent):
            shown = {token for token in event.slots if token is not None}
            line["texts"] = {str(token): self._text(token) for token in sorted(shown)}
        elif isinstance(event, EndEvent) and (rest := self._stream.rest()):
            line["rest"] = rest
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8", newline="\n")
                self._put(self._header)
            self._put(line)
        except OSError as error:
            raise UnspoolError(f"cannot write the trace {self.path}: {error.strerror}; give another file") from error

    def _put(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._file.write(text + "\n")
        self._file.flush()

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = token_text(self._tokenizer, token)
        return self._texts[token]


def write(path: Path, header: Mapping[str, Any], events: Iterable[Event], tokenizer: Tokenizer) -> None:
    """Write a whole trace, for example ``Result.trace``. Raises as ``TraceWriter``."""
    with TraceWriter(path, header, tokenizer) as writer:
        for event in events:
            writer.add(event)


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Readable text of one token. Bytes that are not a character become ``‹E2 96›``, an id without text ``‹7›``."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    raw = tokenizer.token(token)
    if "\ufffd" in text and (data := _bytes(raw)) is not None:
        escaped = data.decode("utf-8", "surrogateescape")
        return _LONE_BYTES.sub(lambda m: "‹" + " ".join(f"{ord(c) - 0xDC00:02X}" for c in m[0]) + "›", escaped)
    if raw.startswith("▁") and not text.startswith(" "):
        return " " + text  # decoders drop the first word's space
    return text or f"‹{token}›"


def _bytes(raw: str) -> bytes | None:
    """The bytes of a byte-level or byte-fallback piece; None for others."""
    if match := _HEX_PIECE.fullmatch(raw):
        return bytes.fromhex(match[1])
    table = _byte_alphabet()
    return bytes(table[c] for c in raw) if raw and all(c in table for c in raw) else None


@cache
def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE uses for bytes: printable ones as themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def read(path: Path) -> Trace:
    """Read and validate a trace; a truncated file is read up to the cut.

    Raises:
        UnspoolError: if the file cannot be read, is of another version, or has a line (named by its number) that is
            not an event.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UnspoolError(f"cannot read {path}: {error.strerror}") from error
    rest = lines.pop()
    if _parse(rest) is not None:  # only the line break is missing
        lines.append(rest)
    if not lines:
        raise UnspoolError(
            f"{path} is not a trace, or ends within its first line; write one with unspool generate --trace"
        )
    header = _header(path, _parse(lines[0]))
    events: list[dict[str, Any]] = []
    position = len(header["prompt_token_ids"])
    for number, line in enumerate(lines[1:], 2):
        event = _parse(line)
        if event is None:
            raise UnspoolError(f"{path}, line {number} is not a JSON object; write the trace again")
        problem = "a second header" if event.get("kind") == "header" else problem_of(event, event.get("kind"))
        if not problem and events and (event["row"] != events[0]["row"] or events[-1]["kind"] == "end"):
            problem = "it belongs to another sequence, and a file contains one"
        if not problem and event["kind"] == "step":
            if event["position"] != position:
                problem = f"its position is {event['position']}, but the text before it ends at {position}"
            position += len(event["emitted"])
        if problem:
            raise UnspoolError(f"{path}, line {number}: {problem}; write the trace again")
        events.append(event)
    return Trace(header, events, not events or events[-1]["kind"] != "end")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A JSON object of finite numbers without duplicate keys; None for anything else."""
    try:
        value = json.loads(line, parse_float=_finite, parse_constant=_finite, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a JSON number")
    return value


def _header(path: Path, line: dict[str, Any] | None) -> dict[str, Any]:
    if line is None or line.get("kind") != "header" or "version" not in line:
        raise UnspoolError(f"{path} is not a trace: line 1 is not a header; write one with unspool generate --trace")
    if line["version"] != TRACE_VERSION:
        raise UnspoolError(
            f"{path} is a trace of format {line['version']}, and unspool {__version__} reads format {TRACE_VERSION}; "
            "update with pip install --upgrade unspool, or write the trace again"
        )
    if problem := problem_of(line, "header"):
        raise UnspoolError(f"{path}, line 1: {problem}; write the trace again")
    return line
