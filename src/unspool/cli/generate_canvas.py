"""``unspool generate`` with a masked-diffusion model: shows the canvas while it fills."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.cli.common import Status, print_json
from unspool.cli.output import as_json, recorded, summary

if TYPE_CHECKING:
    from rich.text import Text

    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.request import CanvasArguments
    from unspool.engine.trace import CanvasEvent, Event

_MASK = "░"


def fill(
    model: str,
    prompt: str,
    arguments: CanvasArguments,
    show_json: bool,
    trace: Path | None,
    backend: str | None = None,
    **options: Any,
) -> None:
    """Decode and print.

    Args:
        trace: file to write every pass to.
        backend, options: of ``load``; None where not given.

    Raises:
        UnspoolError: for an unknown backend or backend option.
    """
    from unspool.decoding import canvas
    from unspool.decoding.load import load

    given = {name: value for name, value in options.items() if value is not None}
    with Status() as status:
        decoder = load(model, expect=canvas.DiffusionModel, backend=backend, report=status.say, **given)
    live = sys.stdout.isatty() and not show_json
    listeners: list[Callable[[Event], None]] = []
    with ExitStack() as stack:
        size = decoder.denoiser.vocab_size
        record = recorded(trace, decoder.name, lambda: decoder.encode(prompt), decoder.tokenizer, size)
        if (add := stack.enter_context(record)) is not None:
            listeners.append(add)
        if live:
            listeners.append(stack.enter_context(_canvas(decoder)))

        def on_event(event: Event) -> None:
            for listen in listeners:
                listen(event)

        result = canvas.generate_batch(decoder, [prompt], replace(arguments, on_event=on_event))[0]
    if show_json:
        print_json(as_json(result, decoder.denoiser.settings))
        return
    if not live:
        print(result.text)
    print(summary(result), file=sys.stderr)


def drawn(event: CanvasEvent, text_of: Callable[[int], str], eos: int | None) -> Text:
    """The canvas after a pass: masks dim, tokens of this pass bold, nothing after the first end token."""
    from rich.text import Text

    shown, committed = Text(), set(event.committed)
    for slot, token in enumerate(event.slots):
        if token is None:
            shown.append(_MASK, "dim")
        elif token == eos:
            break
        else:
            shown.append(text_of(token), "bold green" if slot in committed else "")
    return shown


@contextmanager
def _canvas(decoder: DiffusionModel) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.live import Live

    from unspool.engine.trace import CanvasEvent

    def text_of(token: int) -> str:
        return decoder.tokenizer.decode([token])

    with Live(console=Console(), auto_refresh=False) as live:

        def show(event: Event) -> None:
            if isinstance(event, CanvasEvent):
                live.update(drawn(event, text_of, decoder.denoiser.eos_token_id), refresh=True)

        yield show
