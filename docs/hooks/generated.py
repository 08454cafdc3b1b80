"""mkdocs hook: one page per method from the registry, and tables of options from the code of the command line.

Generated at every build and never committed, so that no page can become outdated. Methods of installed third-party
packages get a page like the built-in ones.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from unspool import methods
from unspool.cli import app
from unspool.cli.train import find
from unspool.engine.method import (
    ACCEPTANCE,
    BATCH,
    CHANNEL,
    COMPRESSOR,
    CONSTRAINT,
    DRAFTER,
    EDIT,
    GUARANTEES,
    KINDS,
    PROBE,
    SAMPLER,
    SCHEDULE,
    SEARCH,
    SHAPER,
    SPAN,
    STOP,
    TRANSFORM,
    UNMASK,
    Kind,
)
from unspool.engine.option import meanings, range_of

sys.path.append(str(Path(__file__).parent))
import results
from architecture import picture

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from unspool.training.trainer import Trainer


def _shell(*lines: str) -> list[str]:
    return ["```sh", *lines, "```", ""]


def _python(*lines: str) -> list[str]:
    return ["```python", *lines, "```"]


def _generate(method: methods.Row, command: str, arguments: str) -> list[str]:
    """Usage of a method that is an argument of ``generate``."""
    flags, loading = [], []
    if method.needs.assistant:
        flags.append("-m qwen2.5-coder-1.5b --assistant-model qwen2.5-coder-0.5b")
        loading += ['"qwen2.5-coder-1.5b"', 'assistant_model="qwen2.5-coder-0.5b"']
    if method.needs.abilities:
        flags.append("--backend transformers")
        loading.append('backend="transformers"')
    return _shell(f'unspool generate {" ".join([*flags, command])} "Why is the sky blue?"') + _python(
        "import unspool",
        "",
        f"model = unspool.load({', '.join(loading)})",
        f'result = model.generate("Why is the sky blue?", {arguments})',
    )


def _of_drafter(method: methods.Row) -> list[str]:
    values = {f.name: f.default for f in fields(method.options) if isinstance(f.default, int | float)}
    spec = method.name + (":" + ",".join(f"{name}={value}" for name, value in values.items()) if values else "")
    return _generate(method, f"--method {spec}", f'method="{spec}"')


def _of_acceptance(method: methods.Row) -> list[str]:
    temperature = 0.0 if method.at_temperature == "greedy" else 0.8
    command = f"--temperature {temperature:g} --acceptance {method.name}"
    return _generate(method, command, f'temperature={temperature}, acceptance="{method.name}"')


def _of_batch(method: methods.Row) -> list[str]:
    prompts = '["Why is the sky blue?", "Count to twenty."]'
    return _python(
        "import unspool",
        "",
        'model = unspool.load(backend="transformers")',
        f'results = model.generate({prompts}, batch="{method.name}")',
    )


def _of_shaper(method: methods.Row) -> list[str]:
    return _generate(method, f"--shaper {method.name}", f'shapers=["{method.name}"]')


def _of_constraint(method: methods.Row) -> list[str]:
    return _python(
        "import unspool",
        "",
        "model = unspool.load()",
        f'result = model.generate("Why is the sky blue?", constraint="{method.name}")',
    )


def _of_sampler(method: methods.Row) -> list[str]:
    return _shell(f'unspool sample --sampler {method.name} --regex "[1-6]" -n 20 "Roll a die."') + _python(
        "import unspool",
        "",
        "model = unspool.load()",
        f'samples = model.sample("Roll a die.", 20, sampler="{method.name}", regex="[1-6]", max_new_tokens=4)',
        "print([result.text for result in samples.results], samples.attempts)",
    )


def _of_search(method: methods.Row) -> list[str]:
    return _shell(f'unspool search --method {method.name} "Why is the sky blue?"') + _python(
        "import unspool",
        "",
        "model = unspool.load()",
        f'print(model.search("Why is the sky blue?", method="{method.name}").text)',
    )


def _of_span(method: methods.Row) -> list[str]:
    return _shell('unspool extract -q "Who found it?" "Caroline Herschel found the comet."') + _python(
        "import unspool",
        "",
        "model = unspool.load()",
        'print(model.extract("Who found it?", "Caroline Herschel found the comet.").text)',
    )


def _of_edit(method: methods.Row) -> list[str]:
    return _shell('unspool edit --replace "os=>sys" "import os"') + _python(
        "import unspool",
        "",
        "model = unspool.load()",
        'editor = model.edit("import os")',
        'editor.replace(7, 9, "sys")',
        "print(editor.generate(max_new_tokens=32).text)",
    )


def _of_canvas(method: methods.Row) -> list[str]:
    return _shell(f'unspool generate -m tiny-diffusion --method {method.name} "<reverse> d a c b"') + _python(
        "import unspool",
        "",
        'model = unspool.load("tiny-diffusion")',
        f'result = model.generate("<reverse> d a c b", method="{method.name}")',
    )


def _of_probe(method: methods.Row) -> list[str]:
    return _python(
        "import unspool",
        "",
        "model = unspool.load()",
        f'result = model.generate("Why is the sky blue?", probes=["{method.name}"])',
        f'print(result.readings["{method.name}"])',
    )


def _of_channel(method: methods.Row) -> list[str]:
    return _python(
        "from unspool import methods",
        "from unspool.engine.method import CHANNEL",
        "",
        f'channel = methods.build("{method.name}", CHANNEL, methods.Resources())',
        "print(channel.decode(channel.encode([0, 1, 1, 0])))",
    )


def _of_compressor(method: methods.Row) -> list[str]:
    return _python(
        "from pathlib import Path",
        "",
        "from unspool import methods",
        "from unspool.engine.method import COMPRESSOR",
        "from unspool.engine.progress import silent",
        "",
        f'compressor = methods.build("{method.name}", COMPRESSOR, methods.Resources())',
        'compressor.run(Path("my-model"), Path("my-smaller-model"), silent)',
    )


EXAMPLES: dict[Kind[Any], Callable[[methods.Row], list[str]]] = {
    DRAFTER: _of_drafter,
    ACCEPTANCE: _of_acceptance,
    BATCH: _of_batch,
    SHAPER: _of_shaper,
    CONSTRAINT: _of_constraint,
    SAMPLER: _of_sampler,
    SEARCH: _of_search,
    SPAN: _of_span,
    EDIT: _of_edit,
    PROBE: _of_probe,
    CHANNEL: _of_channel,
    COMPRESSOR: _of_compressor,
    UNMASK: _of_canvas,
    TRANSFORM: _of_canvas,
    SCHEDULE: _of_canvas,
    STOP: _of_canvas,
}
"""Usage by kind, for methods whose row has no example."""


def pages() -> dict[str, str]:
    """Markdown of every generated page, by path under ``docs/``; the index is first."""
    table = methods.methods()
    return {"methods/index.md": _index(table)} | {f"methods/{name}.md": _page(row) for name, row in table.items()}


def _index(table: Mapping[str, methods.Row]) -> str:
    lines = ["# Methods", "", "The registry of this build, as listed by `unspool methods`.", ""]
    lines += ["For the guarantees, see [Concepts](../concepts.md#guarantees).", ""]
    for kind in KINDS.values():
        rows = [row for row in table.values() if row.kind is kind]
        if not rows:
            continue
        lines += [f"## {kind.title}", "", "| name | guarantee | what it does | paper |", "|---|---|---|---|"]
        lines += [
            f"| [`{row.name}`]({row.name}.md) | {row.guarantee} | {_cell(row.summary)} | {_cell(row.paper)} |"
            for row in rows
        ]
        lines.append("")
    return "\n".join(lines)


def _page(method: methods.Row) -> str:
    module = methods.module_of(method.name)
    needs = [ability.value for ability in sorted(method.needs.abilities)]
    if method.needs.reward:
        needs.insert(0, "a reward of texts")
    if method.needs.assistant:
        needs.insert(0, "a draft model")
    if method.needs.extra:
        needs.append(f'`pip install "unspool[{method.needs.extra}]"`')
    lines = [f"# {method.name}", "", method.summary, "", "| | |", "|---|---|"]
    guarantee = f"[{method.guarantee}](../concepts.md#guarantees): {GUARANTEES[method.guarantee]}"
    facts = {"kind": method.kind.name, "guarantee": guarantee, "paper": method.paper}
    facts |= {"needs": ", ".join(needs) or "no optional ability of the backend", "module": f"`{module}`"}
    if method.memory:
        facts["remembers"] = f"{method.memory} (`model.memories`)"
    lines += [f"| {key} | {_cell(value)} |" for key, value in facts.items()]
    lines += ["", "## Use", "", *_example(method), "", "## Options", "", *_options(method.options)]
    if method.trainer:
        trainer = methods.trainer(method)
        lines += ["", "## Training", "", trainer.summary, "", *_training(method.name, trainer)]
    lines += ["", "## How it works", "", _markdown(sys.modules[module].__doc__ or ""), ""]
    return "\n".join(lines)


_TRAINED_FOR = {
    "model": "-m qwen2.5-coder-0.5b -o",
    "pair": "-m qwen2.5-coder-1.5b --assistant-model qwen2.5-coder-0.5b -o",
    "canvas": "-m tiny-diffusion -o",
    "nothing": "-o",
}


def _training(name: str, trainer: Trainer[Any]) -> list[str]:
    """The command and the options of a trainer."""
    spec = f"{name}:{trainer.example}" if trainer.example else name
    command = _shell(f"unspool train {spec} {_TRAINED_FOR[trainer.trains_for]} trained-{name}")
    return [*command, *_options(trainer.options)]


def _trainers() -> str:
    """Everything that can be trained, as a Markdown list."""
    rows = [row for row in methods.of_kind() if row.trainer]
    return "\n".join(f"- [{row.name}](methods/{row.name}.md#training): {methods.trainer(row).summary}" for row in rows)


def _example(method: methods.Row) -> list[str]:
    """Usage of the method on the command line and in Python."""
    own = method.example
    if own is None:
        return EXAMPLES[method.kind](method)
    shell = _shell(own.shell) if own.shell else []
    return shell + _python(*inspect.cleandoc(own.python).splitlines())


def _options(options: type[Any]) -> list[str]:
    summary = inspect.cleandoc(options.__doc__ or "").splitlines()[0]
    if not fields(options):
        return [summary]
    meaning = meanings(options)
    lines = [_markdown(summary), "", "| option | type | default | range | meaning |", "|---|---|---|---|---|"]
    for field in fields(options):
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        default = "" if field.default is MISSING else f"`{field.default!r}`"
        allowed = range_of(field) or ""
        lines.append(f"| `{field.name}` | `{kind}` | {default} | {allowed} | {_cell(meaning.get(field.name, ''))} |")
    return lines


def _markdown(docstring: str) -> str:
    """A docstring as Markdown, which needs an empty line before a list."""
    return re.sub(r"(?m)^(?!- )(\S.*)\n(?=- )", r"\1\n\n", inspect.cleandoc(docstring))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _commands() -> dict[str, Callable[..., Any]]:
    """The function of each command, by its full name: ``datastore build``; for a group, its callback."""

    def walk(group: typer.Typer, before: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        if before and group.registered_callback and group.registered_callback.callback:
            yield before.strip(), group.registered_callback.callback
        for command in group.registered_commands:
            assert command.callback is not None
            yield before + (command.name or command.callback.__name__.replace("_", "-")), command.callback
        for inner in group.registered_groups:
            assert inner.typer_instance is not None
            yield from walk(inner.typer_instance, f"{before}{inner.name} ")

    return dict(walk(app, ""))


def command_table(function: Callable[..., None]) -> str:
    """Arguments and options of a command as a Markdown table."""
    hints = get_type_hints(function, include_extras=True)
    lines = ["| option | values | default | meaning |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(function).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue  # typer's own context
        kind, info = get_args(hints[name])
        # Inside Annotated, typer takes the first name of an option for its default.
        flags = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str)]
        if type(info).__name__ == "ArgumentInfo":
            flags = [name.upper()]
        shown = ", ".join(f"`{flag}`" for flag in flags or [f"--{name.replace('_', '-')}"])
        default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
        text = "" if default is None or default is False else f"`{default}`"
        lines.append(f"| {shown} | {_values(kind)} | {text} | {_cell(info.help)} |")
    return "\n".join(lines)


def _values(kind: Any) -> str:
    """Choices of an option, or its type; nothing for a flag."""
    if get_args(kind):
        return next((text for argument in get_args(kind) if (text := _values(argument))), "")
    if issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return "" if kind in (bool, type(None)) else str(kind.__name__).lower()


def on_config(config: MkDocsConfig) -> None:
    """Put the methods' pages into the navigation, where ``mkdocs.yml`` has only their index."""
    for entry in config.nav or []:
        if entry.get("Methods") == "methods/index.md":
            entry["Methods"] = list(pages())


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages and the reports."""
    from mkdocs.structure.files import File

    for path, content in {**pages(), **results.reports()}.items():
        files.append(File.generated(config, path, content=content))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in ``<!-- options: COMMAND -->``, the picture of the layers, and results."""
    markdown = re.sub(r"<!-- options: ([\w -]+?) -->", lambda match: command_table(_commands()[match[1]]), markdown)
    markdown = re.sub("<!-- trainers -->", lambda _: _trainers(), markdown)
    markdown = re.sub(r"<!-- trainer: (\w+) -->", lambda match: "\n".join(_options(find(match[1]).options)), markdown)
    markdown = re.sub("<!-- architecture -->", lambda _: picture(), markdown)
    return results.filled(markdown)
