"""The registry: one row a method. Command line, docs, benchmarks and conformance tests read only this table.

Third parties add rows through the entry-point group ``unspool.methods``: each entry is a ``Method``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from unspool.engine.batch import BatchPlan
from unspool.engine.contracts import Ability, AcceptanceRule, Constraint, Drafter, LanguageModel, Memory, Shaper
from unspool.engine.cost import PassCosts
from unspool.engine.typed import values_of
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models.tokenizer import Tokenizer

CanvasKind = Literal["unmask", "transform", "schedule", "stop"]
Kind = Literal["drafter", "acceptance", "batch", "shaper", "constraint", "sampler", "search", "program", CanvasKind]
Guarantee = Literal["identical", "same distribution", "valid", "lossy"]


EXTRAS = {"monitor": ("jedi",), "code": ("tree_sitter", "tree_sitter_python")}
"""Packages by the name with which ``pip install "unspool[NAME]"`` installs them."""


@dataclass(frozen=True)
class Surroundings:
    """What a method may be built from.

    Attributes:
        model: the loaded model.
        memories: what methods keep between requests, by method name, see ``memory``; made on first use.
        costs: gives the model's cost curve as decoding corrects it, measuring it if need be.
        assistant: the draft model, if there is one.
        vocabulary: gives the fingerprint of the tokenizer's vocabulary; ``""`` where it is not known.
        tokenizer: of the model, where text matters.
        eos: ids that end a text of this request.
    """

    model: LanguageModel
    memories: dict[str, Memory] = field(default_factory=dict)
    costs: Callable[[], PassCosts] | None = None
    assistant: LanguageModel | None = None
    vocabulary: Callable[[], str] = str
    tokenizer: Tokenizer | None = None
    eos: frozenset[int] = frozenset()

    def memory(self, name: str, make: Callable[..., Memory], **shape: Any) -> Any:
        """The memory of a method; ``make(**shape)`` is called if there is none yet.

        Args:
            shape: options that say what the memory keeps, and its attributes of the same names. Where they are not the
                defaults of ``make``, the key is such as ``"token_recycling:k=4"``, unless what is held by the method's
                name has this shape.

        Raises:
            UnspoolError: if what is held is a memory of another kind or shape.
        """

        def shaped(memory: Memory | None) -> bool:
            return all(getattr(memory, option, None) == value for option, value in shape.items())

        wanted = ",".join(f"{option}={value}" for option, value in shape.items())
        defaults = {option: signature(make).parameters[option].default for option in shape}
        key = name if shape == defaults or shaped(self.memories.get(name)) else f"{name}:{wanted}"
        if key not in self.memories:
            self.memories[key] = make(**shape)
        held = self.memories[key]
        if isinstance(make, type) and not isinstance(held, make):
            raise UnspoolError(f'memories["{key}"] must be a {make.__name__}, not a {type(held).__name__}')
        if not shaped(held):
            raise UnspoolError(f'memories["{key}"] was not made with {wanted}; ask for what it was made with')
        return held


@dataclass(frozen=True)
class CanvasSurroundings:
    """What a part of the denoise loop may be built from.

    Attributes:
        delimiters: gives the ids of the tokens that hold a newline.
        directory: of the model, where what was trained for it may lie; None: it has none.
    """

    delimiters: Callable[[], Sequence[int]]
    directory: Path | None = None


@dataclass(frozen=True)
class Method:
    """A row of the registry.

    Attributes:
        name: what the user types; also the name of its file, its test and its page.
        kind: which slot it fills: of the autoregressive loop (``drafter``, ``acceptance``, ``batch``, ``shaper``,
            ``constraint``; ``sampler``: of many samples of one prompt) or of the denoise loop (``unmask``,
            ``transform``, ``schedule``, ``stop``); a ``search``; or a ``program`` over the loops, which is called by
            its own name.
        guarantee: ``identical`` (token for token plain decoding), ``same distribution``, ``valid`` or ``lossy``.
        summary: one sentence.
        paper: title and year, or what it is where there is no paper.
        options: frozen dataclass with the paper's defaults.
        build: makes the drafter of one sequence, the acceptance rule, the batch plan, what makes the constraint of a
            prompt from its ids, what makes the shaper of one sample, the search of one prompt, the program's function,
            or the part of one canvas, which gets ``CanvasSurroundings``.
        needs: abilities that the model must offer.
        assisted: whether it needs a draft model.
        draws: of a drafter: whether it draws drafts under an acceptance rule that tests draws. If not, ``lossless``
            gives the text of plain sampling, token for token.
        extra: of ``EXTRAS``: the optional packages that it needs.
    """

    name: str
    kind: Kind
    guarantee: Guarantee
    summary: str
    paper: str
    options: type[Any]
    build: Callable[[Any, Any], Any]
    needs: frozenset[Ability] = frozenset()
    assisted: bool = False
    draws: bool = False
    extra: str | None = None

    @property
    def label(self) -> str:
        """How results name it where its options are the defaults: with what it then lacks, ``specdec_pp (no head)``.

        A class of options may say what is missing with its values, in a property ``lacks``.
        """
        lacks = self.options().lacks if hasattr(self.options, "lacks") else ""
        return f"{self.name} ({lacks})" if lacks else self.name

    @property
    def on_canvas(self) -> bool:
        """Whether it is a part of the denoise loop."""
        return self.kind in get_args(CanvasKind)


@dataclass(frozen=True)
class NoOptions:
    """A method without options."""


@cache
def methods() -> Mapping[str, Method]:
    """All rows by name: shipped ones, then those of installed third-party packages.

    Raises:
        UnspoolError: if a third-party entry is not a ``Method`` or takes a name that is in use.
    """
    # Their rows are built from what is above.
    from unspool.methods._shipped import SHIPPED
    from unspool.methods._shipped_canvas import SHIPPED_CANVAS
    from unspool.methods._shipped_constraints import SHIPPED_CONSTRAINTS
    from unspool.methods._shipped_programs import SHIPPED_PROGRAMS

    shipped = (*SHIPPED, *SHIPPED_CONSTRAINTS, *SHIPPED_PROGRAMS, *SHIPPED_CANVAS)
    table = {method.name: method for method in shipped}
    for entry in entry_points(group="unspool.methods"):
        method = entry.load()
        if not isinstance(method, Method) or method.name in table:
            raise UnspoolError(
                f"the installed method {entry.value!r} is not a Method or reuses a name; uninstall or mend that package"
            )
        table[method.name] = method
    return table


def find(name: str, kind: Kind) -> Method:
    """The row of that name and kind.

    Raises:
        UnknownNameError: with the nearest name.
        UnsupportedError: if it is the name of another kind.
    """
    known = {key: method for key, method in methods().items() if method.kind == kind}
    if name not in known:
        what = {"drafter": "method", "acceptance": "acceptance rule", "batch": "batch plan"}.get(kind, kind)
        if name in methods():
            raise UnsupportedError(
                f"{name} is no {what} but of kind {methods()[name].kind}; `unspool methods` lists what it is for"
            )
        raise UnknownNameError(what, name, known)
    return known[name]


def check_needs(method: Method, surroundings: Surroundings) -> None:
    """Raise an ``UnsupportedError`` that names method and backend if a package, draft model or ability is missing."""
    check_installed(method)
    check_assisted(method, surroundings.assistant)
    model = surroundings.model
    if missing := method.needs - model.abilities:
        wanted = ", ".join(sorted(ability.value for ability in missing))
        raise UnsupportedError(
            f"{method.name} needs {wanted}, which the {model.settings['backend']} backend does not offer; "
            "try --backend transformers"
        )


def check_installed(method: Method) -> None:
    """Raise an ``UnsupportedError`` if optional packages that the method needs are not installed, or broken."""
    if missing := [name for name in EXTRAS.get(method.extra or "", ()) if not _can_import(name)]:
        raise UnsupportedError(
            f'{method.name} needs {" and ".join(missing)}; pip install "unspool[{method.extra}]", or leave it out'
        )


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:  # not there, or built for another Python
        return False
    return True


def check_assisted(method: Method, assistant: object | None) -> None:
    """Raise an ``UnsupportedError`` if the method needs a draft model and there is none."""
    if method.assisted and assistant is None:
        raise UnsupportedError(
            f"{method.name} needs a draft model; name a smaller one of the same tokenizer with --assistant-model "
            "(assistant_model=...)"
        )


def make_options(method: Method, values: Mapping[str, Any]) -> Any:
    """The method's options from keyword arguments, each as its declared type.

    Raises:
        UnknownNameError: for an option that the method does not have.
        UnspoolError: for a value that is not of the option's type, or that the method refuses.
    """
    known = [f.name for f in fields(method.options)]
    for name in values:
        if name not in known:
            raise UnknownNameError(f"option of {method.name}", name, known or ("(none)",))
    return method.options(**values_of(method.options, values))


def drafter(name: str, surroundings: Surroundings, values: Mapping[str, Any] | None = None) -> Drafter:
    """Build the drafter of one sequence by method name."""
    method = find(name, "drafter")
    check_needs(method, surroundings)
    made: Drafter = method.build(surroundings, make_options(method, values or {}))
    return made


def acceptance_rule(name: str | None, greedy: bool, surroundings: Surroundings) -> AcceptanceRule:
    """Build an acceptance rule; by default ``greedy`` at temperature 0 and ``same_noise`` above.

    Raises:
        UnsupportedError: if the rule and the temperature do not go together.
    """
    name = name or ("greedy" if greedy else "same_noise")
    method = find(name, "acceptance")
    check_acceptance(method, greedy)
    check_needs(method, surroundings)
    rule: AcceptanceRule = method.build(surroundings, make_options(method, {}))
    return rule


def check_acceptance(method: Method, greedy: bool) -> None:
    """Raise an ``UnsupportedError`` if an acceptance rule and the temperature do not go together."""
    if method.guarantee == "identical" and greedy != (method.name == "greedy"):
        raise UnsupportedError(
            f"acceptance {method.name!r} is for temperature {'above 0' if greedy else '0'}; leave it out or change "
            "temperature"
        )


def shaper(name: str, surroundings: Surroundings, values: Mapping[str, Any] | None = None) -> Shaper:
    """Build a shaper by name."""
    method = find(name, "shaper")
    check_needs(method, surroundings)
    made: Shaper = method.build(surroundings, make_options(method, values or {}))
    return made


def constraint(
    name: str, surroundings: Surroundings, values: Mapping[str, Any] | None = None
) -> Callable[[Sequence[int]], Constraint]:
    """What makes the constraint of one sequence from the ids of its prompt."""
    method = find(name, "constraint")
    check_needs(method, surroundings)
    made: Callable[[Sequence[int]], Constraint] = method.build(surroundings, make_options(method, values or {}))
    return made


def batch_plan(name: str, values: Mapping[str, Any] | None = None) -> BatchPlan:
    """Build a batch plan by name."""
    method = find(name, "batch")
    made: BatchPlan = method.build(None, make_options(method, values or {}))
    return made
