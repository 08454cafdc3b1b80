"""The registry of methods. A method is a file ``methods/<room>/<name>.py`` that contains ``METHOD``.

A method has the name of its file and is imported only when it is asked for. Third parties add methods through the
entry-point group ``unspool.methods``: the entry's name is the method's, its value a ``Method``. One that cannot be
loaded does not affect the others: looking it up raises the reason, and ``unavailable()`` lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unspool.engine.method import (
    ACCEPTANCE,
    CONSTRAINT,
    DRAFTER,
    KINDS,
    SAMPLER,
    SCHEDULE,
    SEARCH,
    UNMASK,
    Kind,
    Method,
    Product,
    check,
)
from unspool.engine.typed import shown, texts_of, values_of
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods.resources import Resources
from unspool.methods.spec import canonical, parse

if TYPE_CHECKING:
    from unspool.engine.contracts import AcceptanceRule
    from unspool.training.trainer import Trainer

ROOMS = (
    *("drafters", "acceptance", "batching", "shaping", "constraints", "sampling", "search", "cache", "diffusion"),
    *("probes", "channels", "compress"),
)
"""Folders of methods, in the order in which they are listed."""

DEFAULTS: dict[Kind[Any], str] = {
    DRAFTER: "auto",
    CONSTRAINT: "grammar",
    SAMPLER: "cars",
    SEARCH: "beam",
    UNMASK: "threshold",
    SCHEDULE: "fixed_blocks",
}
"""The default method of a kind. That of constraints is what ``json_schema``, ``regex`` and the like use."""

PLAIN = "plain"
"""The baseline: all other drafters are compared with it."""

WIDE = "token_recycling"
"""A drafter of wide token trees, in which siblings are accepted and rejected. Other kinds are tested with it."""

ONE_BY_ONE = "top_k:tokens_per_step=1"
"""One token per pass, the most confident first: the baseline of other ways to fill a canvas."""

TESTED = "lossless"
"""The acceptance rule that verifies sampled drafts."""

Row = Method[Any, Any]
Made = TypeVar("Made")


@cache
def _places() -> Mapping[str, str | EntryPoint]:
    """The location of each method, by name: the module of a built-in one, the entry point of an installed one."""
    places: dict[str, str | EntryPoint] = {}
    for room in ROOMS:
        package = f"{__name__}.{room}"
        for module in iter_modules([f"{path}/{room}" for path in __path__]):
            if not module.name.startswith("_"):
                places[module.name] = f"{package}.{module.name}"
    for entry in entry_points(group="unspool.methods"):
        places.setdefault(entry.name, entry)
    return places


@cache
def _load(name: str) -> Row:
    place = _places()[name]
    if isinstance(place, str):
        return replace(import_module(place).METHOD, name=name)
    try:
        row = place.load()
    except Exception as error:
        raise UnspoolError(
            f"the installed method {name} ({place.value}) cannot be loaded: {type(error).__name__}: {error}; "
            "repair or uninstall that package"
        ) from error
    if not isinstance(row, Method):
        raise UnspoolError(
            f"the installed method {name} ({place.value}) is not a Method; repair or uninstall that package"
        )
    return replace(row, name=name)


def names() -> tuple[str, ...]:
    """Names of all methods, built-in ones first. Imports none of them."""
    return tuple(_places())


def module_of(name: str) -> str:
    """The module that contains a method."""
    place = _places()[name]
    return place if isinstance(place, str) else place.module


def methods() -> dict[str, Row]:
    """All rows by name, except those of third parties that cannot be loaded, see ``unavailable``."""
    return {name: _load(name) for name in _places() if name not in unavailable()}


@cache
def unavailable() -> Mapping[str, str]:
    """Why third-party methods that are installed cannot be used, by name."""
    found: dict[str, str] = {}
    for entry in entry_points(group="unspool.methods"):
        place = _places()[entry.name]
        if isinstance(place, str) or place != entry:
            found[f"{entry.name} ({entry.value})"] = "its name is in use; rename the entry point"
            continue
        try:
            _load(entry.name)
        except UnspoolError as error:
            found[entry.name] = str(error)
    return found


def forget() -> None:
    """Look up again what is installed. For tests."""
    for cached in (_places, _load, unavailable):
        cached.cache_clear()


def find(name: str, kind: Kind[Product]) -> Method[Any, Product]:
    """The row of a method of this kind.

    Raises:
        UnknownNameError: if there is none of this name; suggests the nearest one.
        UnsupportedError: if the name is that of another kind.
        UnspoolError: if it is a third party's and cannot be loaded.
    """
    if name not in _places():
        known = [row.name for row in methods().values() if row.kind is kind]
        raise UnknownNameError(kind.noun, name, known)
    row = _load(name)
    if row.kind is not kind:
        raise UnsupportedError(
            f"{name} is not {kind.a_noun} but of kind {row.kind}; `unspool methods` lists what it is for"
        )
    return row


def named(name: str) -> Row:
    """The row of that name, of whatever kind.

    Raises:
        UnknownNameError: with the nearest name.
        UnspoolError: if it is a third party's and cannot be loaded.
    """
    if name not in _places():
        raise UnknownNameError("method", name, _places())
    return _load(name)


def of_kind(*kinds: Kind[Any]) -> list[Row]:
    """The rows of these kinds; all rows if none is given."""
    return [row for row in methods().values() if not kinds or row.kind in kinds]


def make_options(method: Row, values: Mapping[str, Any]) -> Any:
    """The method's options from keyword arguments, each as its declared type.

    Raises:
        UnknownNameError: for an option that the method does not have.
        UnspoolError: for a value that is not of the option's type, or that the method refuses.
    """
    return _made(method.name, method.options, values)


def _made(owner: str, options: type[Made], values: Mapping[str, Any]) -> Made:
    known = [f.name for f in fields(options)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UnknownNameError(f"option of {owner}", name, known or ("(none)",))
    return options(**values_of(options, values))


def trainer(row: Row) -> Trainer[Any]:
    """How what a method needs is trained. Loads the trainer's module.

    Raises:
        UnsupportedError: if there is nothing to train.
    """
    if not row.trainer:
        names_of_all = ", ".join(other.name for other in of_kind() if other.trainer)
        raise UnsupportedError(f"{row.name} has nothing to train; these have: {names_of_all}")
    found: Trainer[Any] = import_module(row.trainer, module_of(row.name)).TRAINER
    return found


def training_options(name: str, trainer: Trainer[Made], spec: str) -> Made:
    """The options of a trainer that a spec gives, such as ``specdec_pp:prompts=FILE,batch_size=8``.

    Raises:
        UnspoolError: if there is no such option, or a value is not of the option's type or range.
    """
    read = parse(spec, "training")
    values = texts_of(trainer.options, read.values) if read.written else read.values
    return _made(name, trainer.options, values)


@dataclass(frozen=True)
class Chosen(Generic[Product]):
    """A method and the options chosen for it.

    Attributes:
        row: the method's row in the registry.
        options: an object of the method's own options; None if the caller supplies options for each task.
    """

    row: Method[Any, Product]
    options: Any

    @property
    def spec(self) -> str:
        """The canonical spec: the name, and the options that differ from their defaults."""
        return self.row.name if self.options is None else canonical(self.row.name, self.options)

    @property
    def label(self) -> str:
        """The spec, and what the method lacks with these options: ``specdec_pp (no head)``.

        A class of options may name what is missing in a property ``lacks``.
        """
        lacks = getattr(self.options, "lacks", "")
        return f"{self.spec} ({lacks})" if lacks else self.spec

    def label_of(self, made: Product) -> str:
        """The spec, and what the built drafter reports as missing: ``specdec_pp (no head)``."""
        lacks = str(getattr(made, "name", "")).partition(" (")[2]
        return f"{self.spec} ({lacks}" if lacks else self.spec

    def build(self, resources: Resources) -> Product:
        """Build the method for a request.

        Raises:
            UnspoolError: if something that it needs is missing.
        """
        check(self.row, resources)
        return self.row.build(resources, self.options)


def choose(spec: Any, kind: Kind[Product], values: Mapping[str, Any] | None = None) -> Chosen[Product]:
    """The method that a spec names, see ``unspool.methods.spec``.

    Args:
        spec: a text such as ``token_recycling:nodes=8``, or an object of a method's options.
        values: further options, by name.

    Raises:
        UnspoolError: if there is no such method or option, or a value is not of the option's type or range.
    """
    if not isinstance(spec, str):
        rows = [row for row in of_kind(kind) if type(spec) is row.options]
        if not rows:
            raise UnspoolError(f"{shown(spec)} is neither the name of {kind.a_noun} nor its options")
        return Chosen(rows[0], spec)
    read = parse(spec, kind.noun)
    row = find(read.name, kind)
    given = {**(texts_of(row.options, read.values) if read.written else read.values), **(values or {})}
    return Chosen(row, make_options(row, given))


def build(spec: Any, kind: Kind[Product], resources: Resources, values: Mapping[str, Any] | None = None) -> Product:
    """Build the method that a spec names, see ``choose`` and ``Chosen.build``."""
    return choose(spec, kind, values).build(resources)


def default_acceptance(greedy: bool) -> str:
    """The default acceptance rule: it reproduces plain decoding's text at this temperature."""
    return "greedy" if greedy else "same_noise"


def acceptance_rule(spec: Any, greedy: bool, resources: Resources) -> AcceptanceRule:
    """Build an acceptance rule; None is the default one.

    Raises:
        UnsupportedError: if the rule does not support the temperature.
    """
    chosen = choose(default_acceptance(greedy) if spec is None else spec, ACCEPTANCE)
    check_acceptance(chosen.row, greedy)
    return chosen.build(resources)


def check_acceptance(method: Row, greedy: bool) -> None:
    """Raise an ``UnsupportedError`` if the acceptance rule does not support the temperature."""
    if method.at_temperature not in ("any", "zero" if greedy else "above zero"):
        raise UnsupportedError(
            f"acceptance {method.name!r} is for temperature {'above 0' if greedy else '0'}; leave it out or change "
            "temperature"
        )


__all__ = [
    "DEFAULTS",
    "KINDS",
    "ONE_BY_ONE",
    "PLAIN",
    "ROOMS",
    "Chosen",
    "Kind",
    "Method",
    "Resources",
    "Row",
    "acceptance_rule",
    "build",
    "check",
    "check_acceptance",
    "choose",
    "default_acceptance",
    "find",
    "forget",
    "make_options",
    "methods",
    "module_of",
    "named",
    "names",
    "of_kind",
    "trainer",
    "training_options",
    "unavailable",
]
