"""The description of a method: its row of the registry, declared in the method's own file as ``METHOD``.

A ``Kind`` is a slot: of the autoregressive loop, of the denoise loop, or of a verb of the public interface. Its type
is the return type of ``Method.build``, so the type checker checks every row. Everything special about a method is in
its row; instruments (docs, proof, benchmark, conformance) query rows and kinds, never names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from unspool.errors import UnsupportedError

if TYPE_CHECKING:
    from unspool.engine.batch import BatchPlan
    from unspool.engine.canvas import BlockSchedule, ScoreTransform, StopRule, UnmaskPolicy
    from unspool.engine.channel import Channel
    from unspool.engine.compressor import Compressor
    from unspool.engine.contracts import Ability, AcceptanceRule, Constraint, Drafter, Shaper
    from unspool.engine.probe import Probe
    from unspool.engine.search import Found, SearchRequest
    from unspool.engine.taps import Taps
    from unspool.methods.resources import Resources

Options = TypeVar("Options")
Product = TypeVar("Product")
Guarantee = Literal["identical", "same distribution", "valid", "lossy", "exact"]

GUARANTEES: dict[Guarantee, str] = {
    "identical": "token for token the text of plain decoding with the same seed, except at ties",
    "same distribution": "the distribution of plain decoding; the same seed gives another text",
    "valid": "the text satisfies a constraint",
    "lossy": "the text may differ from plain decoding's",
    "exact": "the stated optimum or code, found exactly",
}

EXTRAS = {"monitor": ("jedi",), "code": ("tree_sitter", "tree_sitter_python")}
"""Packages by the extra that installs them: ``pip install "unspool[NAME]"``."""


@dataclass(frozen=True)
class Kind(Generic[Product]):
    """A slot that methods fill.

    Attributes:
        name: value of ``unspool methods --kind``.
        title: heading of its methods in the docs.
        noun: used in messages for one of its methods.
        on_canvas: whether it is a slot of the denoise loop.
    """

    name: str
    title: str
    noun: str
    on_canvas: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def a_noun(self) -> str:
        """The noun with its article."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"


class Search(Protocol):
    """Searches for a better continuation of one prompt than greedy decoding's."""

    def __call__(self, request: SearchRequest) -> Found: ...


BeginConstraint: TypeAlias = "Callable[[Sequence[int]], Constraint]"
"""Creates the constraint of one sequence from the ids of its prompt."""

DRAFTER: Kind[Drafter] = Kind("drafter", "Drafters", "method")
ACCEPTANCE: Kind[AcceptanceRule] = Kind("acceptance", "Acceptance rules", "acceptance rule")
BATCH: Kind[BatchPlan] = Kind("batch", "Batch plans", "batch plan")
SHAPER: Kind[Shaper] = Kind("shaper", "Logits shapers", "shaper")
CONSTRAINT: Kind[BeginConstraint] = Kind("constraint", "Constraints", "constraint")
SAMPLER: Kind[Callable[..., Any]] = Kind("sampler", "Samplers of a grammar", "sampler")
SEARCH: Kind[Search] = Kind("search", "Searches", "search method")
SPAN: Kind[Callable[..., Any]] = Kind("span", "Spans of a passage", "span search")
EDIT: Kind[Any] = Kind("edit", "Edits of a cached prompt", "edit method")
UNMASK: Kind[UnmaskPolicy] = Kind("unmask", "Diffusion: unmask policies", "unmask policy", True)
TRANSFORM: Kind[ScoreTransform] = Kind("transform", "Diffusion: score transforms", "score transform", True)
SCHEDULE: Kind[BlockSchedule] = Kind("schedule", "Diffusion: block schedules", "block schedule", True)
PROBE: Kind[Probe] = Kind("probe", "Probes", "probe")
CHANNEL: Kind[Channel] = Kind("channel", "Channels", "channel")
COMPRESSOR: Kind[Compressor] = Kind("compressor", "Compressors", "compressor")
STOP: Kind[StopRule] = Kind("stop", "Diffusion: stop rules", "stop rule", True)

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for kind in (
        DRAFTER,
        ACCEPTANCE,
        BATCH,
        SHAPER,
        CONSTRAINT,
        SAMPLER,
        SEARCH,
        SPAN,
        EDIT,
        PROBE,
        CHANNEL,
        COMPRESSOR,
        UNMASK,
        TRANSFORM,
        SCHEDULE,
        STOP,
    )
}


@dataclass(frozen=True)
class Needs:
    """The requirements of a method; ``check`` checks them once, before any work.

    Attributes:
        assistant: a draft model.
        tokenizer: the model's tokenizer.
        costs: the model's cost curve.
        reward: a reward of texts.
        abilities: abilities that the backend must offer.
        taps: hidden states and attention that the method reads.
        extra: optional packages, a key of ``EXTRAS``.
    """

    assistant: bool = False
    tokenizer: bool = False
    costs: bool = False
    reward: bool = False
    abilities: frozenset[Ability] = frozenset()
    taps: Taps | None = None
    extra: str | None = None


@dataclass(frozen=True)
class Example:
    """The usage example on a method's page, if it differs from the example of its kind.

    Attributes:
        shell: lines of a shell; empty: there is no command.
        python: lines of Python.
    """

    shell: str
    python: str


@dataclass(frozen=True)
class Case:
    """The case that ``unspool check`` runs a method on, if the usual small model and prompts do not exercise it.

    Attributes:
        options: added to ``Method.trial``; with them the method must have an effect after the prompts.
        prompts: of two different requests, in the tokens of ``conformance.small_model.PIECES``.
        complete: of a constraint: whether an output after the first prompt may end there; None: not known.
        reward: of a search that needs one.
        prepare: writes the trained part that the method needs into a directory; its values do not matter.
        during: context of all checks, such as a cache of slow work outside the method.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    prompts: tuple[str, str] = ("a=(1,)\n", "x=ab\nx=ab")
    complete: Callable[[str], bool | None] = lambda output: None
    reward: Callable[[str], float] = lambda output: len(set(output)) / 100
    prepare: Callable[[Path], None] = lambda directory: None
    during: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class NoOptions:
    """A method without options."""


@dataclass(frozen=True)
class Method(Generic[Options, Product]):
    """A row of the registry.

    Attributes:
        kind: the slot that it fills.
        guarantee: relative to plain decoding, see ``GUARANTEES``.
        summary: one sentence.
        paper: title and year, or its origin if there is no paper.
        options: frozen dataclass with the paper's defaults.
        build: creates the object of the kind's contract from the resources of a request and the options.
        needs: its requirements.
        draws: of a drafter: whether it samples drafts under a rule that uses draft probabilities. If not, ``lossless``
            gives the text of plain sampling, token for token.
        at_temperature: of an acceptance rule: whether it is for temperature 0 (``zero``), for temperatures above 0
            (``above zero``), or for both.
        raw_prompt: of a constraint or a search: it reads the prompt as code, so no chat template is used.
        validity: of a constraint: the module beside it that judges whether its texts are valid (``outcomes``,
            ``JUDGE``).
        trial: options for tests and proofs, if the defaults have no effect or are incomplete.
        sweep: of a part of the denoise loop: the specs that ``unspool tradeoff`` measures, by the name of their line;
            empty: the method with its trial options.
        example: usage, if the kind's example does not fit.
        case: the case of ``unspool check``, if the usual one does not fit.
        memory: what it learns across requests, kept in the user's ``memories`` and files; empty: nothing.
        trainer: module with the ``TRAINER`` that ``unspool train`` runs, such as ``.train`` beside the method; nothing
            else loads it. Empty: there is nothing to train.
        name: the name that users type: that of its file, filled in by the registry.
    """

    kind: Kind[Product]
    guarantee: Guarantee
    summary: str
    paper: str
    options: type[Options]
    build: Callable[[Resources, Options], Product]
    needs: Needs = field(default_factory=Needs)
    draws: bool = False
    at_temperature: Literal["any", "zero", "above zero"] = "any"
    raw_prompt: bool = False
    validity: str = ""
    trial: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    example: Example | None = None
    case: Case = field(default_factory=Case)
    memory: str = ""
    trainer: str = ""
    name: str = ""


def check_installed(method: Method[Any, Any]) -> None:
    """Raise an ``UnsupportedError`` if optional packages that the method needs are missing or broken."""
    extra = method.needs.extra
    if missing := [name for name in EXTRAS.get(extra or "", ()) if not _can_import(name)]:
        raise UnsupportedError(
            f'{method.name} needs {" and ".join(missing)}; pip install "unspool[{extra}]", or leave it out'
        )


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:  # missing, or built for another Python
        return False
    return True


def check_assisted(method: Method[Any, Any], assistant: object | None) -> None:
    """Raise an ``UnsupportedError`` if the method needs a draft model and none was given."""
    if method.needs.assistant and assistant is None:
        raise UnsupportedError(
            f"{method.name} needs a draft model; give a smaller model with the same tokenizer by --assistant-model "
            "(assistant_model=...)"
        )


def check_reward(method: Method[Any, Any], reward: object | None) -> None:
    """Raise an ``UnsupportedError`` if a reward is needed but missing, or given but not used."""
    if method.needs.reward and reward is None:
        raise UnsupportedError(f"{method.name} needs a reward for its texts; give one: reward=...")
    if reward is not None and not method.needs.reward:
        raise UnsupportedError(f"{method.name} does not take a reward; leave it out")


def check(method: Method[Any, Any], resources: Resources) -> None:
    """Raise an ``UnsupportedError`` that names the method's missing requirements."""
    check_installed(method)
    check_assisted(method, resources.assistant)
    needs = method.needs
    for wanted, there, what in (
        (needs.tokenizer, resources.tokenizer, "the model's tokenizer"),
        (needs.costs, resources.costs, "the model's cost curve"),
    ):
        if wanted and there is None:
            raise UnsupportedError(f"{method.name} needs {what}; use unspool.load(), which provides it")
    if needs.taps:
        from unspool.engine.taps import check as check_taps  # not needed for a look-up

        check_taps(resources.model, needs.taps, method.name)
    if not needs.abilities:
        return
    model = resources.model
    if missing := needs.abilities - model.abilities:
        wanted_abilities = ", ".join(sorted(ability.value for ability in missing))
        raise UnsupportedError(
            f"{method.name} needs {wanted_abilities}, which the {model.settings['backend']} backend does not offer; "
            "try --backend transformers"
        )
