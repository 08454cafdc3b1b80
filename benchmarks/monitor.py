"""Does a monitor keep small models to names that exist? A made-up package, decoded with and without it.

A package of 30 classes with invented member names is written, and a caller file for each of its methods: an object, a
comment that says what is wanted, and a line that is cut at the dot. The model sees the caller file only, so that names
are to be guessed, as those of a private library are. The line is decoded greedily to its end.

- exists: the first identifier behind the dot is a member of the object.
- match: it is the one that was held out.
- raises: the file was executed and raised an exception; of these, AttributeError.
- triggers: identifiers that were monitored.
- leaks: of the dots that came in one token with letters, those whose identifier the analyser does not know. There the
  line is cut before the dot, so that the model may choose such a token. Not verified is the paper's method.

Two controls have no model: a name is drawn from those that the analyser knows at the place, special ones left out; and
of these the one is taken that shares most words with the comment (drawn among equals). Their match is the expected one.
Since the names here are made of the comment's words, the second can hardly be beaten: the monitor does not make a model
understand, it keeps it to names that exist. Shares have Wilson's 95 % interval; differences are paired, with 10,000
bootstrap samples. Nothing is timed. With --json an interrupted run goes on where it ended; --limit may change.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

from unspool import methods
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.method import CONSTRAINT, DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.methods.constraints.monitor import MonitorConstraint
from unspool.methods.constraints.monitor.jedi import JediAnalyser
from unspool.models.tokenizer import StopStrings
from unspool.sandbox import run as sandbox
from unspool.storage.journal import Journal

CLASSES, METHODS, PER_FILE = 30, 4, 5
VERBS = (
    "measure", "archive", "polish", "rotate", "inspect", "borrow",
    "flatten", "weigh", "signal", "drain", "stitch", "label",
)  # fmt: skip
NOUNS = (
    "lantern", "pollen", "gasket", "harbor", "ledger", "quarry",
    "saddle", "turbine", "orchard", "valve", "mirror", "canal",
)  # fmt: skip
# How a library names what one would call "measure the lantern".
SHAPES = ("{verb}_{noun}", "{noun}_{verb}", "run_{verb}_{noun}", "{verb}_the_{noun}", "{noun}_to_{verb}", "do_{verb}")
PARTS = ("brel", "tav", "quon", "dri", "mosk", "vel", "zan", "plo", "ker", "ulm")


@dataclass(frozen=True)
class Site:
    """A caller file that ends at a dot, without it.

    Attributes:
        code: the file.
        owner: class of the object before the dot.
        truth: the member that is wanted.
    """

    code: str
    owner: str
    truth: str


@dataclass(frozen=True)
class Library:
    """The package: its files by path, the module of each class, and the sites."""

    files: dict[str, str]
    modules: dict[str, str]
    sites: list[Site]


def library(seed: int) -> Library:
    """A package and its sites; every third one reaches its object through another one."""
    rng = random.Random(seed)
    names = [(a + b).capitalize() for a in PARTS for b in PARTS if a != b]
    classes = rng.sample(names, CLASSES)
    modules = {name: f"works.part{i // PER_FILE}" for i, name in enumerate(classes)}
    files = {"works/__init__.py": ""}
    sites = []
    for i, name in enumerate(classes):
        verbs, nouns = rng.sample(VERBS, METHODS), rng.sample(NOUNS, METHODS)
        shapes = rng.sample(SHAPES, METHODS)
        members = [s.format(verb=v, noun=n) for s, v, n in zip(shapes, verbs, nouns, strict=True)]
        # Only classes of the same file and before are linked, so that every object can be made.
        linked = classes[i - 1] if i % PER_FILE else None
        link = f"paired_{linked.lower()}" if linked else None
        lines = [f"class {name}:", "    def __init__(self, size):", f"        self.{nouns[0]}_count = size"]
        lines += [f"        self.{link} = {linked}(size)"] if link else []
        for member, noun in zip(members, nouns, strict=True):
            lines += [f"    def {member}(self):", f"        return len({noun!r}) + self.{nouns[0]}_count"]
        file = modules[name].replace(".", "/") + ".py"
        files[file] = files.get(file, "") + "\n".join(lines) + "\n\n\n"
        user = classes[i + 1] if (i + 1) % PER_FILE and i + 1 < CLASSES else None
        for member, verb, noun in zip(members, verbs, nouns, strict=True):
            through = user if user and len(sites) % 3 == 0 else None
            made = through or name
            target = f"item.paired_{name.lower()}" if through else "item"
            code = f"from {modules[made]} import {made}\n\nitem = {made}(3)\n# {verb} the {noun}\nresult = {target}"
            sites.append(Site(code, name, member))
    return Library(files, modules, sites)


@dataclass(frozen=True)
class Arm:
    """A way to decode the sites."""

    name: str
    monitored: bool
    verify: bool = True
    cut_before_dot: bool = False


COLUMNS = ["", "exists", "match", "95 %", "raises", "AttributeError", "triggers", "leaks"]
ARMS = (
    Arm("plain", False),
    Arm("monitor", True),
    Arm("cut before the dot: plain", False, cut_before_dot=True),
    Arm("... monitor, not verified", True, verify=False, cut_before_dot=True),
    Arm("... monitor", True, cut_before_dot=True),
)
Found = dict[str, Any]


def row(arm: Arm, found: list[Found]) -> list[str]:
    def share(name: str) -> str:
        return f"{100 * sum(one[name] for one in found) / len(found):.1f} %"

    low, high = common.wilson(sum(one["match"] for one in found), len(found))
    numbers = [share("exists"), share("match"), f"{100 * low:.1f} to {100 * high:.1f}"]
    numbers += [share("raises"), share("attribute")]
    if not arm.monitored:
        return [arm.name, *numbers, "–", "–"]
    total = {name: sum(one[name] for one in found) for name in ("triggers", "merged", "leaks")}
    return [arm.name, *numbers, str(total["triggers"]), f"{total['leaks']} of {total['merged']}"]


def chance(analyser: JediAnalyser, site: Site) -> Found:
    """Expected matches without a model, and how many names were drawn from."""
    text = site.code + "."
    names = [name for name in analyser.suggestions(text, len(text)) if not name.startswith("__")]
    comment = set(re.findall(r"# (.*)", site.code)[-1].split())
    shared = {name: len(comment & set(name.split("_"))) for name in names}
    most = [name for name in names if shared[name] == max(shared.values())]
    return {
        "names": len(names),
        "drawn": (site.truth in names) / len(names),
        "words": (site.truth in most) / len(most),
    }


def outcomes(found: dict[str, list[Found]], controls: list[Found]) -> list[str]:
    """Each comparison in words that the figures give."""
    match = {name: [float(one["match"]) for one in those] for name, those in found.items()}
    match |= {"a name at random": [one["drawn"] for one in controls], "most words": [one["words"] for one in controls]}
    lines = []
    for ours, theirs in (("monitor", "plain"), ("monitor", "a name at random"), ("monitor", "most words")):
        mean, low, high = common.difference(match[ours], match[theirs])
        said = common.verdict(ours, theirs, low, high)
        lines.append(f"- match of {ours} less {theirs}: {mean:+.3f} ({common.interval(low, high)}): {said}.")
    return lines


def line(model: Model, prompt: str, constraint: MonitorConstraint | None, max_new_tokens: int) -> str:
    """The rest of the line, greedily."""
    resources = model.resources()
    stop = StopStrings(model.tokenizer, ["\n"])
    request = Request(
        model.tokenizer.encode(prompt),
        methods.build("plain", DRAFTER, resources),
        methods.acceptance_rule(None, True, resources),
        GenerationOptions(max_new_tokens=max_new_tokens),
        eos=model.eos_token_ids,
        constraint=constraint,
        stopping=stop,
    )
    ids = [t for e in decode(model.language_model, [request]) if isinstance(e, StepEvent) for t in e.emitted]
    return stop.text if "\n" in model.tokenizer.decode(ids) else model.tokenizer.decode(ids)


def program(files: dict[str, str], code: str, wanted: str | None) -> str:
    """A program that writes the package and runs ``code``; ``wanted`` is an error that it must end with, if any."""
    return "\n".join(
        [
            "import pathlib, sys",
            f"for name, text in {files!r}.items():",
            "    pathlib.Path(name).parent.mkdir(exist_ok=True)",
            "    pathlib.Path(name).write_text(text)",
            "sys.path.insert(0, '.')",
            f"code = {code!r}",
            "try:",
            "    exec(compile(code, 'caller', 'exec'), {})",
            f"except {wanted or '()'}:",
            "    pass",
            f"else:\n    {'raise SystemExit(1)' if wanted else 'pass'}",
        ]
    )


def measure(model: Model, made: Library, root: Path, site: Site, arm: Arm, max_new_tokens: int) -> Found:
    # Our own code, so it may be imported here.
    members = dir(getattr(importlib.import_module(made.modules[site.owner]), site.owner)(1))
    prompt = site.code + ("" if arm.cut_before_dot else ".")
    constraint = None
    if arm.monitored:
        ids = model.tokenizer.encode(prompt)
        options = {"project": root, "verify": arm.verify}
        constraint = methods.build("monitor", CONSTRAINT, model.resources(), options)(ids)
    rest = line(model, prompt, constraint, max_new_tokens)
    found = re.match(r"\.(\w+)" if arm.cut_before_dot else r"(\w+)", rest)
    name = found[1] if found else ""
    code = prompt + rest + "\n"
    raises = not sandbox.run(program(made.files, code, None))
    return {
        "exists": name in members,
        "match": name == site.truth,
        "raises": raises,
        "attribute": raises and sandbox.run(program(made.files, code, "AttributeError")),
        "triggers": constraint.triggers if constraint else 0,
        "merged": constraint.merged if constraint else 0,
        "leaks": constraint.leaks if constraint else 0,
        "line": rest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append", help="as `unspool generate -m`; several are compared")
    parser.add_argument("--threads", type=int, help="as `unspool generate --threads`")
    parser.add_argument("--limit", type=int, help="only the first sites; all 120 by default")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="32 by default")
    parser.add_argument("--seed", type=int, default=0, help="of the package")
    parser.add_argument("--json", type=Path, help="file for all figures and lines")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    sandbox.require()
    names = arguments.model or ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
    setting = about()
    made = library(arguments.seed)
    sites = made.sites[: arguments.limit]
    file = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial.jsonl")
    journal = Journal(file, {"seed": arguments.seed, "max_new_tokens": arguments.max_new_tokens}, "--json")
    known = {(found["model"], found["site"], found["arm"]): found for found in journal.lines}
    chosen = (
        f"{len(sites)} of {len(made.sites)} sites, {CLASSES} classes, seed {arguments.seed}; greedy, max_new_tokens "
    )
    chosen += f"{arguments.max_new_tokens}. Nothing here was timed. Guards of the sandbox: "
    chosen += f"{', '.join(sandbox.guards()) or 'none'}."
    parts = ["# Names that exist, with and without a monitor", common.describe(setting), chosen]
    results: dict[str, Any] = {**setting, "sandbox": sandbox.guards(), "chosen": chosen}
    results |= {"sites": [vars(site) for site in sites], "models": {}}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, text in made.files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
        sys.path.insert(0, directory)
        analyser = JediAnalyser(root)
        controls = [chance(analyser, site) for site in sites]
        for name in names:
            model = load(name, report=common.say, threads=arguments.threads)
            title = f"{model.name}, {model.language_model.settings['weights']}"
            found: dict[str, list[Found]] = {arm.name: [] for arm in ARMS}
            for number, site in enumerate(sites):
                for arm in ARMS:
                    key = (title, number, arm.name)
                    if key not in known:
                        measured = measure(model, made, root, site, arm, arguments.max_new_tokens)
                        known[key] = {"model": title, "site": number, "arm": arm.name, **measured}
                        journal.add(known[key])
                    found[arm.name].append(known[key])
                common.say(f"{model.name}: site {number + 1} of {len(sites)}")
            rows = [row(arm, found[arm.name]) for arm in ARMS]
            for control, key in (("no model: a name at random", "drawn"), ("no model: most words", "words")):
                share = sum(one[key] for one in controls) / len(controls)
                rows.append([control, "100.0 %", f"{100 * share:.1f} %", *["–"] * 5])
            told = outcomes(found, controls)
            parts += [f"## {title}", common.table(COLUMNS, rows), "\n".join(told)]
            results["models"][title] = {"found": found, "outcomes": told}
        results["controls"] = controls
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    if len(sites) == len(made.sites):
        journal.remove()


if __name__ == "__main__":
    common.run(main)
