"""Makes the viewer page: one HTML file with its style, its scripts and the traces, which loads nothing else."""

from __future__ import annotations

import html
import json
import webbrowser
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from unspool.errors import UnspoolError
from unspool.storage.cache import atomic_file
from unspool.storage.text_files import check_file
from unspool.trace.file import Trace

SCRIPTS = ("data.js", "tree.js", "card.js", "panel.js", "viewer.js")

_STEP = (
    "position",
    "tokens",
    "parents",
    "sources",
    "accepted",
    "emitted",
    "pieces",
    "margins",
    "logprobs",
    "ranks",
    "alternatives",
    "draft_ms",
    "score_ms",
    "accept_ms",
    "observe_ms",
)
_CANVAS = ("step", "block", "slots", "committed", "confidence", "ms")


def page(traces: Sequence[Trace], names: Sequence[str]) -> str:
    """The HTML page.

    Args:
        traces: one, or two that are shown side by side.
        names: title of each trace.
    """
    data = [_data(trace, name) for trace, name in zip(traces, names, strict=True)]
    # ASCII without "<": nothing in it can end the script element.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template(_part("viewer.html")).substitute(
        title=html.escape(f"{', '.join(names)}: unspool trace"),
        style=_part("viewer.css"),
        data=text,
        script="\n".join(map(_part, SCRIPTS)),
    )


def page_path(trace: Path) -> Path:
    """Path of a trace's page: next to the trace.

    Raises:
        UnspoolError: if the trace itself has that name.
    """
    path = trace.with_suffix(".html")
    if path == trace:
        raise UnspoolError(f"the page would replace the trace {trace}; give a trace another ending, such as .jsonl")
    return path


def save(path: Path, traces: Sequence[Trace], names: Sequence[str]) -> None:
    """Write the page; raises ``UnspoolError`` if a file cannot be written there."""
    check_file(path)
    with atomic_file(path) as temporary:
        temporary.write_text(page(traces, names), encoding="utf-8", newline="\n")


def show(path: Path) -> bool:
    """Open a page in the user's browser; False if there is none."""
    return webbrowser.open(path.resolve().as_uri())


def _part(name: str) -> str:
    return resources.files("unspool.trace.viewer").joinpath(name).read_text("utf-8")


def _data(trace: Trace, name: str) -> dict[str, Any]:
    header, events = trace.header, trace.events
    texts: dict[str, str] = {}
    for event in events:
        texts |= event.get("texts", {})
    first = {event["kind"]: event for event in reversed(events)}
    start, prefill, end = (first.get(kind, {}) for kind in ("start", "prefill", "end"))
    steps = [{key: event[key] for key in _STEP} for event in events if event["kind"] == "step"]
    if steps and (rest := end.get("rest")):
        *pieces, last = steps[-1]["pieces"]
        steps[-1]["pieces"] = [*pieces, last + rest]
    return {
        "name": name,
        "unspool": header["unspool"],
        "model": header["model"],
        "prompt": header["prompt"],
        "promptTokens": len(header["prompt_token_ids"]),
        "vocabulary": header["vocabulary"],
        "method": start.get("method"),
        "settings": start.get("settings", {}),
        "temperature": start.get("temperature"),
        "seed": start.get("seed"),
        "prefillMs": prefill.get("ms"),
        "reason": end.get("error", end.get("reason")),
        "truncated": trace.truncated,
        "texts": texts,
        "steps": steps,
        "canvas": [{key: event[key] for key in _CANVAS} for event in events if event["kind"] == "canvas"],
    }
