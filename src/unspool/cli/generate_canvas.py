"""``unspool generate`` with a masked-diffusion model: the canvas fills before one's eyes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.cli.common import Status, print_json
from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json

if TYPE_CHECKING:
    from rich.text import Text

    from unspool.decoding.canvas import CanvasResult, DiffusionModel
    from unspool.engine.trace import CanvasEvent, Event

_MASK = "░"


def fill(
    model: str,
    prompt: str,
    options: dict[str, Any],
    device: str | None,
    as_json: bool,
    trace: Path | None,
    backend: str | None = None,
    weights: str | None = None,
    threads: int | None = None,
) -> None:
    """Decode and print.

    Args:
        options: of ``DiffusionModel.generate``.
        trace: file that every pass is written to.
        backend: None: the default of canvases.
        device, weights, threads: of the backend; None where not given.

    Raises:
        UnspoolError: for a backend or an option of it that does not exist.
    """
    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.load import load
    from unspool.methods._compose import written

    options = {**options, "method": written(options["method"])}
    given: dict[str, Any] = {"device": device, "weights": weights, "threads": threads}
    with Status() as status:
        loading = {name: value for name, value in given.items() if value is not None}
        decoder = load(model, expect=DiffusionModel, backend=backend, report=status.say, **loading)
    told: list[Callable[[Event], None]] = []
    with ExitStack() as stack:
        if trace is not None:
            from unspool.trace.file import TraceWriter, make_header

            header = make_header(decoder.name, decoder.encode(prompt), decoder.tokenizer, decoder.denoiser.vocab_size)
            told.append(stack.enter_context(TraceWriter(trace, header, decoder.tokenizer)).add)
        live = sys.stdout.isatty() and not as_json
        if live:
            told.append(stack.enter_context(_canvas(decoder)))

        def on_event(event: Event) -> None:
            for tell in told:
                tell(event)

        result = decoder.generate(prompt, on_event=on_event, **options)
    if as_json:
        print_json(_as_json(decoder, options["method"], result))
        return
    if not live:
        print(result.text)
    print(summary(result, options["method"]), file=sys.stderr)


def pieces_of(canvas: str) -> list[Any]:
    """What ``--canvas`` says: texts and numbers of slots.

    Raises:
        UnspoolError: if it is not a JSON list.
    """
    try:
        pieces = parse_json(canvas)
    except ValueError:
        pieces = None
    if not isinstance(pieces, list):
        raise UnspoolError(f'--canvas is a JSON list such as \'["def f0(", 3, "):"]\', not {canvas!r}')
    return pieces


def summary(result: CanvasResult, method: str) -> str:
    """The line below a text."""
    s = result.statistics
    return (
        f"[{s.tokens} tokens · {s.tokens_per_second:.1f} tokens/s · {s.tokens_per_pass:.2f} tokens/pass · "
        f"{s.passes} passes · {method} · {result.finish_reason}]"
    )


def drawn(event: CanvasEvent, text_of: Callable[[int], str], eos: int | None) -> Text:
    """The canvas after a pass: masks dim, tokens of this pass bold, nothing behind the first end token."""
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


def _as_json(decoder: DiffusionModel, method: str, result: CanvasResult) -> dict[str, Any]:
    s = result.statistics
    return {
        "model": decoder.name,
        "method": method,
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "statistics": {
            "tokens": s.tokens,
            "tokens_per_second": round(s.tokens_per_second, 2),
            "tokens_per_pass": round(s.tokens_per_pass, 3),
            "passes": s.passes,
            "commits": s.commits,
            "positions_scored": s.fed,
            "seconds": round(s.seconds, 4),
        },
        "settings": decoder.denoiser.settings,
    }
