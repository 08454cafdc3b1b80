"""Monitor-guided decoding: does a monitor keep a small model to names that exist, and to the right ones?

Each caller file is cut at a dot and its line decoded greedily to the end, with and without a monitor. ``exists``: the
first identifier after the dot is a member of the object; ``match``: it is the one that was held out; ``attribute``: the
file was executed and raised AttributeError. In the variants ``before the dot`` the file is cut before it, so that the
model may choose a token in which the dot comes with letters; there the paper's method, which is not verified, leaks
names that the analyser does not know.

Two controls have no model: a name is drawn from those that the analyser knows at the place, special ones left out; and
of these the one is taken that shares most words with the comment (drawn among equals). Their match is the expected one.
Since the names are made of the comment's words, the second is a strong one: a monitor does not make a model understand.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.method import CONSTRAINT, DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.experiments._drafting import by_variant
from unspool.experiments._made_up_package import Library, Site, library, program
from unspool.methods.constraints.monitor import MonitorConstraint
from unspool.methods.constraints.monitor.jedi import JediAnalyser
from unspool.models.tokenizer import StopStrings
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, share
from unspool.sandbox import run as sandbox


@dataclass(frozen=True)
class Arm:
    """A way to decode the sites."""

    name: str
    monitored: bool
    verify: bool = True
    before_dot: bool = False


PLAIN, OURS, DRAWN, WORDS = "plain", "monitor", "no model: a name at random", "no model: most words"
UNVERIFIED = "before the dot: monitor, not verified"
ARMS = (
    Arm(PLAIN, False),
    Arm(OURS, True),
    Arm("before the dot: plain", False, before_dot=True),
    Arm(UNVERIFIED, True, verify=False, before_dot=True),
    Arm("before the dot: monitor", True, before_dot=True),
)


def cases(setup: Setup) -> list[Case]:
    """A case is a site in all variants."""
    sandbox.require()
    made = library(0)

    def measure(site: Site) -> list[Row]:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            for name, text in made.files.items():
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text(text)
            rows = [_decode(setup.language_model(), made, root, site, arm) for arm in ARMS]
            return [*rows, *_chance(JediAnalyser(root), site)]

    return [Case(f"site {i}", partial(measure, site)) for i, site in enumerate(made.sites[: setup.count])]


def _chance(analyser: JediAnalyser, site: Site) -> list[Row]:
    """The two controls."""
    text = site.code + "."
    names = [name for name in analyser.suggestions(text, len(text)) if not name.startswith("__")]
    comment = set(re.findall(r"# (.*)", site.code)[-1].split())
    shared = {name: len(comment & set(name.split("_"))) for name in names}
    most = [name for name in names if shared[name] == max(shared.values())]
    return [
        {"variant": name, "exists": True, "match": (site.truth in chosen) / len(chosen)}
        for name, chosen in ((DRAWN, names), (WORDS, most))
    ]


def _decode(model: Model, made: Library, root: Path, site: Site, arm: Arm) -> Row:
    prompt = site.code + ("" if arm.before_dot else ".")
    constraint = None
    if arm.monitored:
        options = {"project": root, "verify": arm.verify}
        built = methods.build("monitor", CONSTRAINT, model.resources(), options)(model.tokenizer.encode(prompt))
        assert isinstance(built, MonitorConstraint)
        constraint = built
    rest = _line(model, prompt, constraint)
    found = re.match(r"\.(\w+)" if arm.before_dot else r"(\w+)", rest)
    name = found[1] if found else ""
    code = prompt + rest + "\n"
    raises = not sandbox.run(program(made.files, code, None))
    return {
        "variant": arm.name,
        "exists": name in site.members,
        "match": float(name == site.truth),
        "raises": raises,
        "attribute": raises and sandbox.run(program(made.files, code, "AttributeError")),
        "triggers": constraint.triggers if constraint else 0,
        "merged": constraint.merged if constraint else 0,
        "leaks": constraint.leaks if constraint else 0,
    }


def _line(model: Model, prompt: str, constraint: MonitorConstraint | None) -> str:
    """The rest of the line, greedily, of at most 32 tokens."""
    resources = model.resources()
    stop = StopStrings(model.tokenizer, ["\n"])
    request = Request(
        model.tokenizer.encode(prompt),
        methods.build("plain", DRAFTER, resources),
        methods.acceptance_rule(None, True, resources),
        GenerationOptions(max_new_tokens=32),
        eos=model.eos_token_ids,
        constraint=constraint,
        stopping=stop,
    )
    ids = [t for e in decode(model.language_model, [request]) if isinstance(e, StepEvent) for t in e.emitted]
    text: str = model.tokenizer.decode(ids)
    return stop.text if "\n" in text else text


def summarise(rows: Sequence[Row]) -> Summary:
    """Differences paired by site."""
    by = by_variant(rows)
    match = {variant: [float(row["match"]) for row in found] for variant, found in by.items()}
    errors = {arm.name: [float(row["attribute"]) for row in by[arm.name]] for arm in ARMS}
    exists = [row["exists"] for row in by[OURS]]
    verified = sum(row["leaks"] for arm in ARMS if arm.verify for row in by[arm.name])
    figures = {
        "names that exist, monitor": Figure(sum(exists) / len(exists), count=len(exists)),
        "unknown names that a verified monitor let through": Figure(verified, count=len(exists)),
        "match, monitor less plain": difference(match[OURS], match[PLAIN]),
        "match, monitor less a name at random": difference(match[OURS], match[DRAWN]),
        "match, monitor less most words": difference(match[OURS], match[WORDS]),
        "AttributeError, monitor less plain": difference(errors[OURS], errors[PLAIN]),
    }
    return Summary(figures, [_table(by)])


def _table(by: dict[str, list[Row]]) -> Table:
    drawn = []
    for variant, rows in by.items():
        cells = [f"{100 * sum(row[name] for row in rows) / len(rows):.1f} %" for name in ("exists", "match")]
        matched = share([row["match"] == 1 for row in rows])
        total = {name: sum(row.get(name, 0) for row in rows) for name in ("attribute", "triggers", "merged", "leaks")}
        if variant in (DRAWN, WORDS):
            drawn.append((variant, *cells, "–", "–", "–", "–"))
            continue
        cells.append(f"{100 * (matched.low or 0):.1f} to {100 * (matched.high or 0):.1f} %")
        cells.append(f"{100 * total['attribute'] / len(rows):.1f} %")
        drawn.append((variant, *cells, str(total["triggers"]), f"{total['leaks']} of {total['merged']}"))
    return Table("", ("", "exists", "match", "95 %", "AttributeError", "triggers", "leaks"), drawn)


EXPERIMENT = Experiment(
    methods=("monitor",),
    claim="A monitor that masks identifiers which static analysis does not know raises the share of right next "
    "identifiers and of code without reference errors, without any training.",
    control="no monitor; no model: a name of the analyser's drawn at random, and the one that shares most words with "
    "the comment",
    test="120 places after a dot in callers of a made-up package, greedy to the end of the line",
    cases=cases,
    summarise=summarise,
    requires=[
        Expect("names that exist, monitor", at_least=1),
        Expect("unknown names that a verified monitor let through", at_most=0),
    ],
    expects=[
        Expect("match, monitor less plain", at_least=0.05, cases=20),
        Expect("match, monitor less a name at random", at_least=0.05, cases=20),
        Expect("match, monitor less most words", at_least=0, cases=20),
        Expect("AttributeError, monitor less plain", at_most=-0.1, cases=20),
    ],
    count=120,
    minutes=20,
)
