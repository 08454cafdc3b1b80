"""Options and progress displays shared by several commands."""

from __future__ import annotations

import codecs
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.engine.cpu import MOST_THREADS
from unspool.engine.progress import Progress
from unspool.errors import UnspoolError
from unspool.storage.text_files import decoded, read_text

if TYPE_CHECKING:
    from unspool.decoding.model import Model


ModelOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Catalogue name (see `unspool models`), Hugging Face directory or hub name, or GGUF file. "
        "Default: smollm2-135m.",
    ),
]
AssistantOption = Annotated[
    str | None,
    typer.Option(
        "--assistant-model",
        help="Draft model, for methods that need one: a smaller model with the same tokenizer, given like --model; "
        "NAME@int4 sets its weight format.",
        show_default=False,
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="openvino is fast on CPUs; transformers (torch) is the reference; installed packages can add others."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Weight format, for openvino: int8 (default), int4 or fp32; for diffusion models fp32 (default) or int8.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_THREADS,
        help="Number of threads, for openvino. Default: the physical cores available to the process.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="torch device, for transformers. Default: cpu.", show_default=False)
]


@contextmanager
def loaded(
    model: str | None,
    backend: str | None = None,
    assistant_model: str | None = None,
    max_new_tokens: int | None = None,
    **options: str | int | None,
) -> Iterator[Model]:
    """Load a model, with a spinner on stderr that shows the step and its seconds; options of None are left out.

    Fails before loading if a text of ``max_new_tokens`` cannot fit the model.
    """
    from unspool.decoding.load import load
    from unspool.decoding.model import Model

    if max_new_tokens is not None:
        check_length(model, max_new_tokens)
    given = {name: value for name, value in options.items() if value is not None}
    with Status() as status:
        made = load(model, expect=Model, backend=backend, assistant_model=assistant_model, report=status.say, **given)
    yield made


def measure_costs(model: Model, *drafters: Any) -> None:
    """Measure the cost curve with a spinner, if a drafter needs it and the cache has none."""
    from unspool.engine.method import DRAFTER
    from unspool.methods import choose

    if any(choose(drafter, DRAFTER).row.needs.costs for drafter in drafters):
        with Status() as status:
            model.report = status.say
            model.cost_curve()


def check_length(model: str | None, max_new_tokens: int) -> None:
    """Reject a text that cannot fit a model's context, before the model is loaded."""
    from unspool.backends import loading
    from unspool.models.catalogue import default_model
    from unspool.models.resolve import resolve

    loading.check_length(resolve(model or default_model()), max_new_tokens)


class Status:
    """The current step on stderr: on a terminal a line redrawn each second, elsewhere one line per message."""

    def __init__(self) -> None:
        # Kept, because sys.stderr is replaced to silence libraries while a model is converted.
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._stop = threading.Event()
        self._message = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Status:
        return self

    def say(self, message: str) -> None:
        self._message = message
        if not self._terminal:
            print(f"{message} …", file=self._stream, flush=True)
        elif self._thread is None:
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()

    def _draw(self) -> None:
        from rich.console import Console

        with Console(file=self._stream).status("") as status:
            seconds = 0.0
            while not self._stop.wait(0.2):
                seconds += 0.2
                status.update(f"{self._message} … {seconds:.0f} s")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress as bars on a terminal; elsewhere one line for each finished part."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:

        def tell(what: str, done: int, of: int) -> None:
            if done == of:
                print(f"{what}: {of} of {of}", file=sys.stderr, flush=True)

        yield tell
        return
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
    )
    tasks: dict[str, rich.TaskID] = {}
    with rich.Progress(*columns, console=console, transient=True) as shown:

        def draw(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done)

        yield draw


def print_json(data: Any) -> None:
    """Print machine-readable data, as ASCII where the terminal's encoding lacks characters: none may be lost."""
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    print(json.dumps(data, indent=1, ensure_ascii=not is_utf8))


def names_of(text: str, option: str) -> list[str]:
    """Split a comma-separated list of names or method specs.

    Raises:
        UnspoolError: for an empty or a repeated one.
    """
    from unspool.methods.spec import split

    names = split(text, ",")
    if not all(names):
        raise UnspoolError(f"{option} has an empty name in {text!r}; separate names by single commas")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UnspoolError(f"{option} names {twice!r} twice; name it once")
    return names


def read_prompt(prompt: str | None, file: Path | None, what: str = "prompt") -> str:
    """The text of the argument, of a file, or of standard input; ``what`` names it in errors."""
    if prompt is not None and file is not None:
        raise UnspoolError(f"a {what} and --file were both given; use one of them")
    if file is not None:
        prompt = read_text(file)
    elif prompt is None:
        if sys.stdin is None or sys.stdin.isatty():  # None: closed by the caller
            raise UnspoolError(
                f'no {what}; give it as an argument, with --file, or on standard input: echo "…" | unspool …'
            )
        # Bytes: decoded with the terminal's encoding they may not be valid text.
        prompt = decoded(sys.stdin.buffer.read(), f"the {what} on standard input")
    if not prompt.strip():
        raise UnspoolError(f"the {what} is empty; give some text")
    return prompt


def show_page(trace: Path | None, view: bool) -> None:
    """Write the page of a trace, if one was requested."""
    if trace is not None and view:
        from unspool.cli.view import write_page

        print(f"page: {write_page([trace])}", file=sys.stderr)
