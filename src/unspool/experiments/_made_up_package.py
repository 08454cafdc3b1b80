"""A package of invented classes, and caller files that are cut where the name of a member is due.

As with a private library, no model has seen the names, and the caller file does not show them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

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
    """A caller file that ends before a dot.

    Attributes:
        code: the file: an object, a comment that says what is wanted, and the beginning of a line.
        owner: class of the object before the dot.
        truth: the member that is wanted.
        members: all members that its objects have and that the package defines.
    """

    code: str
    owner: str
    truth: str
    members: frozenset[str]


@dataclass(frozen=True)
class Library:
    """The package: its files by path, and the sites."""

    files: dict[str, str]
    sites: list[Site]


def library(seed: int) -> Library:
    """A package and its sites; every third one reaches its object through another one."""
    rng = random.Random(seed)
    names = [(a + b).capitalize() for a in PARTS for b in PARTS if a != b]
    classes = rng.sample(names, CLASSES)
    modules = {name: f"works.part{i // PER_FILE}" for i, name in enumerate(classes)}
    files = {"works/__init__.py": ""}
    sites: list[Site] = []
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
        known = frozenset([*dir(object), "__dict__", "__module__", "__weakref__", f"{nouns[0]}_count", *members])
        known |= {link} if link else set()
        user = classes[i + 1] if (i + 1) % PER_FILE and i + 1 < CLASSES else None
        for member, verb, noun in zip(members, verbs, nouns, strict=True):
            through = user if user and len(sites) % 3 == 0 else None
            made = through or name
            target = f"item.paired_{name.lower()}" if through else "item"
            code = f"from {modules[made]} import {made}\n\nitem = {made}(3)\n# {verb} the {noun}\nresult = {target}"
            sites.append(Site(code, name, member, known))
    return Library(files, sites)


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
