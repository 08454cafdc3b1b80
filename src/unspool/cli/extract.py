"""``unspool extract``: answer a question with a span of a passage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unspool.cli.common import (
    BackendOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    loaded,
    print_json,
    read_prompt,
)

if TYPE_CHECKING:
    from unspool.decoding.extract import Extraction


def extract(
    question: Annotated[str, typer.Option("-q", "--question", help="Question about the passage.")],
    passage: Annotated[
        str | None, typer.Argument(help="The passage; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the passage from this file.")] = None,
    top_k: Annotated[int, typer.Option(help="Number of spans with different text to print.")] = 1,
    max_span_tokens: Annotated[int, typer.Option(help="Maximum length of a span, in tokens.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Answer a question with the most probable span of a passage under the model. The search is exact.

    With --top-k above 1, each line contains probability, characters and text. stderr gets one line: forward passes and
    the tree nodes scored in them.

    Examples:

      unspool extract -q "Who found it?" "The comet was found by Caroline Herschel in 1786."

      unspool extract -m qwen2.5-coder-0.5b -q "Which licence is it under?" --file README.md --top-k 5

      unspool extract -q "What does it return?" --json < docstring.txt | jq .spans
    """
    from unspool.decoding.extract import check
    from unspool.methods.search.extract.span import ExtractOptions

    # Fail before a model is loaded or downloaded.
    ExtractOptions(top_k=top_k, max_span_tokens=max_span_tokens)
    text = read_prompt(passage, file, "passage")
    check(question, text)
    with loaded(model, backend, weights=weights, threads=threads, device=device) as decoder:
        found = decoder.extract(question, text, top_k=top_k, max_span_tokens=max_span_tokens)
    if as_json:
        print_json(_as_json(found))
        return
    for span in found.spans:
        # A span may contain line breaks of the passage.
        line = " ".join(span.text.split())
        print(line if top_k == 1 else f"{span.probability:.4g}\t{span.start}-{span.end}\t{line}")
    print(f"{found.passes} passes, {found.nodes} nodes", file=sys.stderr)


def _as_json(found: Extraction) -> dict[str, object]:
    spans = [vars(span) | {"logprob": span.logprob, "probability": span.probability} for span in found.spans]
    return {"model": found.model, "method": found.method, "spans": spans, "passes": found.passes, "nodes": found.nodes}
