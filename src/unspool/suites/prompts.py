"""Prompts and their files: JSON lines, as Spec-Bench's, or plain text, one prompt per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json, read_text


@dataclass(frozen=True)
class Prompt:
    """One prompt of a suite.

    Attributes:
        id: unique in its file; by default the line number, from 1.
        category: kind of prompt; by default ``"prompt"``.
        text: the request to the model.
        checker: name of the answer check; None without one.
        reference: what the checker compares the answer with.
    """

    id: str
    category: str
    text: str
    checker: str | None = None
    reference: str = ""


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, in its order.

    A ``.jsonl`` file contains one JSON object per line with either ``prompt`` or, as in Spec-Bench, ``turns``, of which
    the first is used. Optional are ``id`` (also ``question_id`` or ``task_id``), ``category``, ``checker`` and
    ``reference``. Any other file is plain text, one prompt per line. Blank lines are skipped.

    Raises:
        UnspoolError: if the file cannot be read, has no prompt, or has a bad line, which is named by its number.
    """
    text = read_text(path)
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if path.suffix == ".jsonl":
            try:
                prompt = _from_json(line, number)
            except ValueError as error:
                raise UnspoolError(f"{path}, line {number}: {error}; fix or remove the line") from error
        else:
            prompt = Prompt(str(number), "prompt", line.strip())
        if prompt.id in lines:
            raise UnspoolError(
                f"{path}, line {number}: the id {prompt.id!r} is that of line {lines[prompt.id]}; give each its own"
            )
        lines[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise UnspoolError(f"{path} contains no prompt; write one per line")
    return prompts


def _from_json(line: str, number: int) -> Prompt:
    """Parse a line. Raises ``ValueError`` with the fault."""
    data = parse_json(line)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    turns = data.get("turns")
    text = data["prompt"] if "prompt" in data else turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError('needs "prompt" (text) or "turns" (a list of texts)')
    checker = data.get("checker")
    if checker is not None and not isinstance(checker, str):
        raise ValueError('"checker" must be a name')
    name = next((data[key] for key in ("id", "question_id", "task_id") if key in data), number)
    return Prompt(str(name), str(data.get("category", "prompt")), text, checker, str(data.get("reference", "")))
