"""The output of ``unspool generate``: status line, JSON and trace."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unspool.engine.statistics import CanvasStatistics, Statistics
from unspool.storage.text_files import check_file

if TYPE_CHECKING:
    from unspool.decoding.results import Result
    from unspool.engine.trace import Event
    from unspool.models.tokenizer import Tokenizer

TRACED = 8
"""Number of top tokens that a trace lists for each emitted token."""

CUT = 3
"""Exit code if the text under a grammar is not complete."""


def trace_file(trace: Path | None, view: bool, *read: Path | None) -> Path | None:
    """The path of the trace, or None.

    Raises:
        UnspoolError: if it cannot be written, or would overwrite an input file.
    """
    if trace is None:
        return Path(tempfile.mkdtemp(prefix="unspool-")) / "run.jsonl" if view else None
    from unspool.trace.viewer.page import page_path

    for path in [trace, page_path(trace)] if view else [trace]:
        check_file(path, *read)
    return trace


@contextmanager
def recorded(
    path: Path | None, model: str, ids: Callable[[], Sequence[int]], tokenizer: Tokenizer, vocab_size: int
) -> Iterator[Callable[[Event], None] | None]:
    """A callback that writes each event of a run to ``path``; None without a path.

    Args:
        ids: returns the ids of the prompt.
    """
    if path is None:
        yield None
        return
    from unspool.trace.file import TraceWriter, make_header

    with TraceWriter(path, make_header(model, ids(), tokenizer, vocab_size), tokenizer) as writer:
        yield writer.add


def summary(result: Result[Any]) -> str:
    """The status line after a text."""
    s = result.statistics
    if isinstance(s, CanvasStatistics):
        rate = f"{s.tokens_per_pass:.2f} tokens/pass"
    else:
        rate = f"{s.mean_accepted_tokens:.2f} accepted/pass"
    return (
        f"[{s.tokens} tokens · {s.tokens_per_second:.1f} tokens/s · {rate} · {s.passes} passes · {result.method} · "
        f"{result.finish_reason}]"
    )


def as_json(result: Result[Any], settings: dict[str, str], by_grammar: bool = False) -> dict[str, Any]:
    """A result for ``--json``.

    Args:
        settings: of the backend.
        by_grammar: whether the text was under a constraint.
    """
    shown: dict[str, Any] = {
        "model": result.model,
        "method": result.method,
        "text": result.text,
        "token_ids": result.token_ids,
    }
    if result.logprobs is not None:
        shown["logprobs"] = result.logprobs
    shown["finish_reason"] = result.finish_reason
    if isinstance(result.statistics, CanvasStatistics):
        figures = _canvas_figures(result.statistics)
    else:
        shown["valid"] = result.finish_reason == "stop" if by_grammar else None
        shown |= {"parsed": result.parsed, "parse_error": result.parse_error}
        figures = _figures(result.statistics, len(result.prompt_token_ids))
    return {**shown, "statistics": figures, "settings": settings}


def _figures(s: Statistics, prompt_tokens: int) -> dict[str, Any]:
    return {
        "tokens": s.tokens,
        "tokens_per_second": round(s.tokens_per_second, 2),
        "mean_accepted_tokens": round(s.mean_accepted_tokens, 3),
        "passes": s.passes,
        "prompt_tokens": prompt_tokens,
        "prefill_seconds": round(s.prefill_seconds, 4),
        "decode_seconds": round(s.decode_seconds, 4),
        "overhead": round(s.overhead, 4),
        "by_source": s.by_source,
    }


def _canvas_figures(s: CanvasStatistics) -> dict[str, Any]:
    return {
        "tokens": s.tokens,
        "tokens_per_second": round(s.tokens_per_second, 2),
        "tokens_per_pass": round(s.tokens_per_pass, 3),
        "passes": s.passes,
        "commits": s.commits,
        "positions_scored": s.fed,
        "seconds": round(s.seconds, 4),
    }


def check_complete(result: Result[Any]) -> None:
    """Exit with code 3 if a text under a constraint is not complete."""
    if result.parse_error is not None:
        print(f"unspool: the text is complete, but cannot be parsed: {result.parse_error}", file=sys.stderr)
    if result.finish_reason == "stop":
        return
    what = "leave out --stop" if result.finish_reason == "stop_string" else "raise --max-new-tokens"
    print(f"unspool: the text was cut before it was complete; {what}", file=sys.stderr)
    raise typer.Exit(CUT)
