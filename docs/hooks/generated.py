"""mkdocs hook: one page a method from the registry, and the tables of options from the command line's own code.

Made at every build and never committed, so that no page can go stale. Methods of installed third-party packages get
their page like the shipped ones.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.bench.contestants import PLAIN
from unspool.bench.result import Bench
from unspool.bench.summary import ALL, ratio_table, summarise
from unspool.bench.tradeoff import Frontier
from unspool.cli.bench import bench
from unspool.cli.calibrate import calibrate
from unspool.cli.datastore import build as datastore_build
from unspool.cli.extract import extract
from unspool.cli.generate import generate
from unspool.cli.learn_threshold import adadec_threshold
from unspool.cli.methods import list_methods
from unspool.cli.models import list_models
from unspool.cli.models import remove as models_remove
from unspool.cli.prove import prove
from unspool.cli.report import report
from unspool.cli.search import search
from unspool.cli.tradeoff import frontier
from unspool.cli.train import acceptance_head, diffusion, unmask_filter
from unspool.cli.train_certainty import certainty
from unspool.cli.view import view
from unspool.engine.cost import CostCurve, PassCosts
from unspool.report.tradeoff import FEWEST, KINDS, fewest

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate,
    "extract": extract,
    "search": search,
    "adadec_threshold": adadec_threshold,
    "models": list_models,
    "methods": list_methods,
    "calibrate": calibrate,
    "prove": prove,
    "bench": bench,
    "frontier": frontier,
    "report": report,
    "view": view,
    "models_remove": models_remove,
    "datastore": datastore_build,
    "train": acceptance_head,
    "diffusion": diffusion,
    "unmask_filter": unmask_filter,
    "certainty": certainty,
}

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

_GUARANTEES: dict[methods.Guarantee, str] = {
    "identical": "token for token the text of plain decoding with the same seed, ties apart",
    "same distribution": "the distribution of plain decoding, other texts for the same seed",
    "valid": "the text satisfies a constraint",
    "lossy": "the text may differ from plain decoding's",
}

_SEARCHES = {
    "adadec": (
        '--threshold 1.3 "Write a haiku about autumn."',
        '"Write a haiku about autumn.", method="adadec", method_options={"threshold": 1.3}',
    ),
    "beam": ('--num-beams 5 "Why is the sky blue?"', '"Why is the sky blue?", method="beam"'),
    "plan": (
        "--max-model-tokens 4000 --file function.py",
        'prompt, chat=False, method="plan", reward=PublicTests(prompt), stop_rule="function_body"',
    ),
}
"""Arguments of the command and of the call."""

_EXAMPLES = {
    "edit": [
        "```python",
        "import unspool",
        "",
        'model = unspool.load("qwen2.5-coder-0.5b")',
        'with open("unfinished.py") as file:',
        "    editor = unspool.edit(model, file.read())",
        'print(editor.replace(0, 0, "import json\\n"))',
        "print(editor.generate(max_new_tokens=32).text)",
        "```",
    ],
    "monitor": [
        "```sh",
        "unspool generate -m qwen2.5-coder-0.5b --monitor . --file unfinished.py",
        "```",
        "",
        "```python",
        "import unspool",
        "",
        'model = unspool.load("qwen2.5-coder-0.5b")',
        'code = open("unfinished.py").read()',
        'project = {"project": "."}',
        'print(model.generate(code, chat=False, constraint="monitor", constraint_options=project).text)',
        "```",
    ],
    "extract": [
        "```sh",
        'unspool extract -q "Who found it?" "The comet was found by Caroline Herschel in 1786."',
        "```",
        "",
        "```python",
        "import unspool",
        "",
        "model = unspool.load()",
        'passage = "The comet was found by Caroline Herschel in 1786."',
        'print(unspool.extract(model, "Who found it?", passage).text)',
        "```",
    ],
    "grammar": [
        "```sh",
        'unspool generate --choices yes --choices no "Is the sky blue?"',
        "```",
        "",
        "```python",
        "import unspool",
        "from pydantic import BaseModel",
        "",
        "",
        "class Person(BaseModel):",
        "    name: str",
        "    age: int",
        "",
        "",
        "model = unspool.load()",
        'person = model.generate("Make up a person.", json_schema=Person).parsed',
        "```",
    ],
}

_KINDS: dict[methods.Kind, str] = {
    "drafter": "Drafters",
    "acceptance": "Acceptance rules",
    "batch": "Batch plans",
    "shaper": "Logits shapers",
    "constraint": "Constraints",
    "sampler": "Samplers of a grammar",
    "search": "Searches",
    "program": "Programs over the loop",
    "unmask": "Diffusion: unmask policies",
    "transform": "Diffusion: score transforms",
    "schedule": "Diffusion: block schedules",
    "stop": "Diffusion: stop rules",
}


def pages() -> dict[str, str]:
    """Markdown of every generated page, by path under ``docs/``; the index comes first."""
    table = methods.methods()
    return {"methods/index.md": _index(table)} | {f"methods/{name}.md": _page(row) for name, row in table.items()}


def _index(table: Mapping[str, methods.Method]) -> str:
    lines = ["# Methods", "", "What `unspool methods` lists: the registry of this build.", ""]
    lines += ["What the guarantees mean stands in [Concepts](../concepts.md#guarantees).", ""]
    for kind, title in _KINDS.items():
        lines += [f"## {title}", "", "| name | guarantee | what it does | paper |", "|---|---|---|---|"]
        lines += [
            f"| [`{row.name}`]({row.name}.md) | {row.guarantee} | {_cell(row.summary)} | {_cell(row.paper)} |"
            for row in table.values()
            if row.kind == kind
        ]
        lines.append("")
    return "\n".join(lines)


def _page(method: methods.Method) -> str:
    module = _module(method)
    needs = ", ".join(sorted(ability.value for ability in method.needs))
    lines = [f"# {method.name}", "", method.summary, "", "| | |", "|---|---|"]
    guarantee = f"[{method.guarantee}](../concepts.md#guarantees): {_GUARANTEES[method.guarantee]}"
    facts = {"kind": method.kind, "guarantee": guarantee, "paper": method.paper}
    if method.assisted:
        needs = ", ".join(filter(None, ["a draft model", needs]))
    facts |= {"needs": needs or "no optional ability of the backend", "module": f"`{module}`"}
    lines += [f"| {key} | {_cell(value)} |" for key, value in facts.items()]
    lines += ["", "## Use", "", *_example(method), "", "## Options", "", *_options(method.options)]
    lines += ["", "## How it works", "", _markdown(sys.modules[module].__doc__ or ""), ""]
    return "\n".join(lines)


def _module(method: methods.Method) -> str:
    """The module that holds the method: that of its options, or where it has none, of what it builds."""
    if method.options is not methods.NoOptions:
        return str(method.options.__module__)
    curve = CostCurve((1, 64), (32,), ((1.0, 2.0),))
    surroundings = methods.Surroundings(ToyModel.random(), costs=lambda: PassCosts(curve))
    return type(method.build(surroundings, method.options())).__module__


def _example(method: methods.Method) -> list[str]:
    """The method on the command line and in Python."""
    if method.on_canvas:
        return [
            "```sh",
            f'unspool generate -m tiny-diffusion --method {method.name} "<reverse> d a c b"',
            "```",
            "",
            "```python",
            "import unspool",
            "",
            'model = unspool.load_diffusion("tiny-diffusion")',
            f'result = model.generate("<reverse> d a c b", method="{method.name}")',
            "```",
        ]
    if method.kind == "drafter":
        command, arguments = f"--method {method.name}", f'method="{method.name}"'
        values = {f.name: f.default for f in fields(method.options) if f.default is not MISSING}
        if values:
            arguments += (
                ", method_options={" + ", ".join(f'"{name}": {value!r}' for name, value in values.items()) + "}"
            )
    elif method.kind == "batch":
        return [
            "```python",
            "import unspool",
            "",
            'model = unspool.load(backend="transformers")',
            f'results = model.generate(["Why is the sky blue?", "Count to twenty."], batch="{method.name}")',
            "```",
        ]
    elif method.kind == "shaper":
        command, arguments = f"--shaper {method.name}", f'shapers=["{method.name}"]'
    elif method.kind == "search":
        flags, options = _SEARCHES[method.name]
        return [
            "```sh",
            f"unspool search -m qwen2.5-coder-0.5b --method {method.name} {flags}",
            "```",
            "",
            "```python",
            "import unspool",
            "",
            'model = unspool.load("qwen2.5-coder-0.5b")',
            f"print(model.search({options}).text)",
            "```",
        ]
    elif method.name in _EXAMPLES:
        return _EXAMPLES[method.name]
    elif method.kind == "sampler":
        return [
            "```python",
            "import unspool",
            "",
            "model = unspool.load()",
            f'samples = model.sample("Roll a die.", 20, sampler="{method.name}", regex="[1-6]", max_new_tokens=4)',
            "print([result.text for result in samples.results], samples.attempts)",
            "```",
        ]
    else:
        temperature = 0.0 if method.name == "greedy" else 0.8
        command = f"--temperature {temperature:g} --acceptance {method.name}"
        arguments = f'temperature={temperature}, acceptance="{method.name}"'
    flags, loading = [], []
    if method.assisted:
        flags.append("-m qwen2.5-coder-1.5b --assistant-model qwen2.5-coder-0.5b")
        loading += ['"qwen2.5-coder-1.5b"', 'assistant_model="qwen2.5-coder-0.5b"']
    if method.needs:
        flags.append("--backend transformers")
        loading.append('backend="transformers"')
    return [
        "```sh",
        f'unspool generate {" ".join([*flags, command])} "Why is the sky blue?"',
        "```",
        "",
        "```python",
        "import unspool",
        "",
        f"model = unspool.load({', '.join(loading)})",
        f'result = model.generate("Why is the sky blue?", {arguments})',
        "```",
    ]


def _options(options: type[Any]) -> list[str]:
    summary = inspect.cleandoc(options.__doc__ or "").splitlines()[0]
    if not fields(options):
        return [summary]
    meaning = attributes(options.__doc__ or "")
    lines = [_markdown(summary), "", "| option | type | default | meaning |", "|---|---|---|---|"]
    for field in fields(options):
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        default = "" if field.default is MISSING else f"`{field.default!r}`"
        lines.append(f"| `{field.name}` | `{kind}` | {default} | {_cell(meaning.get(field.name, ''))} |")
    return lines


def attributes(docstring: str) -> dict[str, str]:
    """The ``Attributes`` section of a docstring: name to text; ``a, b: text`` gives both names the text."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", section.split("\n\n")[0]) if section else ():
        names, _, text = entry.strip().partition(":")
        found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def _markdown(docstring: str) -> str:
    """A docstring as Markdown, which wants an empty line before a list."""
    return re.sub(r"(?m)^(?!- )(\S.*)\n(?=- )", r"\1\n\n", inspect.cleandoc(docstring))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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


def bench_table(bench: Bench) -> str:
    """Speed of every contestant in relation to plain decoding as a Markdown table, with what it was measured on."""
    summaries = summarise(bench)
    categories = [name for name in dict.fromkeys(row.category for row in summaries) if name != ALL]
    ratios = ratio_table(summaries)
    best = {c: max(by[c][1] for by in ratios.values() if c in by) for c in categories}
    passes = {row.contestant: row.mean_accepted_tokens for row in summaries if row.category == ALL}
    speed = next(row.tokens_per_second.median for row in summaries if (row.contestant, row.category) == (PLAIN, ALL))

    def cell(by: Mapping[str, tuple[float, float]], category: str) -> str:
        if category not in by:
            return "–"
        text = f"{by[category][1]:.2f}"
        return f"**{text}**" if by[category][1] == best[category] else text

    lines = [
        f"| | tokens a pass | {' | '.join(categories)} | geometric mean |",
        "|---|" + "---:|" * (len(categories) + 2),
    ]
    for name, by in ratios.items():
        cells = [cell(by, category) for category in categories]
        accepted = passes.get(name)
        mean = geometric_mean(by[c][1] for c in categories if c in by)
        shown = "–" if accepted is None else f"{accepted:.2f}"
        lines.append(f"| `{name}` | {shown} | {' | '.join(cells)} | {mean:.2f} |")
    host, versions = bench.about["machine"], bench.about["versions"]
    lines += [
        "",
        "Speed ÷ plain decoding's (ratio of totals; the best of a category is bold; below 1 is slower). "
        f"{bench.model}; plain: {speed:.1f} tokens/s. "
        f"{host['cpu']}, {host['physical_cores']} cores, {bench.about['date'][:10]}, "
        f"unspool {versions['unspool']}, OpenVINO {versions['openvino']}. Made by:",
        "",
        "```sh",
        bench.command,
        "```",
    ]
    return "\n".join(lines)


def _bench_file(name: str) -> str:
    return bench_table(Bench.from_json(json.loads((_BENCHMARKS / name).read_text())))


def frontier_table(result: Frontier) -> str:
    """Of every line the fewest passes that lose at most one point, as Markdown tables, one for each kind of task."""
    lines: list[str] = []
    for dependent, words in KINDS.items():
        rows = [FEWEST, ("---", "---", "---:", "---:", "---:"), *fewest(result, dependent)]
        lines += [f"{words}:", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    host = result.about["machine"]
    questions = len(result.points[0].right)
    lines += [
        f"{result.model}, {questions} held-out questions of each task. {host['cpu']}, {result.about['date'][:10]}. "
        "Made by:",
        "",
        "```sh",
        result.command,
        "```",
    ]
    return "\n".join(lines)


def _frontier_file(name: str) -> str:
    return frontier_table(Frontier.from_json(json.loads((_BENCHMARKS / name).read_text())))


def on_config(config: MkDocsConfig) -> None:
    """Put the methods' pages into the navigation, where ``mkdocs.yml`` has only their index."""
    for entry in config.nav or []:
        if entry.get("Methods") == "methods/index.md":
            entry["Methods"] = list(pages())


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in ``<!-- options: COMMAND -->``, and ``<!-- bench: FILE -->`` and ``<!-- frontier: FILE -->``, results in
    ``benchmarks``."""
    markdown = re.sub(r"<!-- options: (\w+) -->", lambda match: command_table(_COMMANDS[match[1]]), markdown)
    markdown = re.sub(r"<!-- bench: (\S+) -->", lambda match: _bench_file(match[1]), markdown)
    return re.sub(r"<!-- frontier: (\S+) -->", lambda match: _frontier_file(match[1]), markdown)
