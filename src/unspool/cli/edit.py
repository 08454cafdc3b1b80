"""``unspool edit``: edit a prompt, reuse its KV cache, and continue the text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unspool.cli.common import (
    AssistantOption,
    BackendOption,
    DeviceOption,
    ModelOption,
    Status,
    ThreadsOption,
    WeightsOption,
    loaded,
    measure_costs,
    print_json,
    read_prompt,
)
from unspool.cli.output import as_json, summary
from unspool.cli.request import Given, request_flags, values_of
from unspool.decoding.request import GenerationArguments
from unspool.errors import UnspoolError


@request_flags("method", "acceptance", "max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
def edit(
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="The text; without it, --file or standard input is read.")
    ] = None,
    replace: Annotated[
        list[str],
        typer.Option(
            "-r",
            "--replace",
            metavar="OLD=>NEW",
            help="Replace OLD, which must occur exactly once in the text, by NEW. May be repeated; each applies to the "
            "text after the one before. An empty NEW deletes OLD.",
        ),
    ],
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    mode: Annotated[
        str,
        typer.Option(
            help="pie: move the entries after the change. hybrid: also encode the most affected tokens. recompute: "
            "encode everything after the change (exact). conflict: do not move keys to their new positions."
        ),
    ] = "pie",
    refresh: Annotated[
        str,
        typer.Option(help="Tokens that hybrid encodes again: names (lines that share a name with the change) or last."),
    ] = "names",
    refresh_tokens: Annotated[int, typer.Option(help="Number of tokens that hybrid encodes again.")] = 128,
    given: Given,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the text from this file.")] = None,
    show_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Edit a prompt without encoding all of it again, then continue it.

    The text is encoded once. Each change encodes only its own tokens and moves the keys after them. stderr gets one
    line per change and one for the continuation; each says whether the cache is still exact.

    Examples:

      unspool edit --replace "import os=>import sys" --file unfinished.py

      unspool edit -m qwen2.5-coder-0.5b --mode hybrid -r "n=>count" --max-new-tokens 64 --file function.py

      unspool edit --mode recompute --replace "cat=>dog" --json "The cat says" | jq .edits
    """
    from unspool.methods.cache.edit import PieOptions

    # Fail before a model is loaded or downloaded.
    options = PieOptions(mode, refresh, refresh_tokens)  # type: ignore[arg-type]  # which it checks
    text = read_prompt(prompt, file)
    changes = changes_of(text, replace)
    arguments = GenerationArguments(**values_of(given))
    arguments.check(assistant_model)
    length = arguments.max_new_tokens
    source = loaded(model, backend, assistant_model, length, weights=weights, threads=threads, device=device)
    with source as decoder:
        measure_costs(decoder, arguments.method)
        with Status() as status:
            status.say("encoding the text")
            edited = decoder.edit(text, **vars(options))
            edits = [edited.replace(*change) for change in changes]
            status.say("continuing it")
            result = edited.generate(**values_of(given))
    if show_json:
        shown = as_json(result, decoder.language_model.settings)
        print_json({**shown, "prompt": edited.text, "exact": result.exact, "edits": [vars(one) for one in edits]})
        return
    print(result.text)
    for one in edits:
        print(
            f"[{'exact' if one.exact else 'approximate'} · {one.encoded} tokens encoded · {one.shifted} moved · "
            f"{one.ms:.0f} ms]",
            file=sys.stderr,
        )
    print(summary(result), file=sys.stderr)


def changes_of(text: str, replacements: list[str]) -> list[tuple[int, int, str]]:
    """Start, stop and new text of each change, in characters of the text after the change before it.

    Raises:
        UnspoolError: for one without ``=>``, or whose OLD does not occur exactly once.
    """
    found = []
    for written in replacements:
        old, arrow, new = written.partition("=>")
        if not arrow or not old:
            raise UnspoolError(f'--replace must be "OLD=>NEW", not {written!r}')
        if (count := text.count(old)) != 1:
            what = "does not occur in the text" if not count else f"occurs {count} times in the text; give more of it"
            raise UnspoolError(f"--replace: {old!r} {what}")
        start = text.index(old)
        found.append((start, start + len(old), new))
        text = text[:start] + new + text[start + len(old) :]
    return found
