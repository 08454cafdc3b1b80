"""What a method says of itself: its row of the registry, which stands in the method's own file as ``METHOD``.

A ``Kind`` is a slot: of the autoregressive loop, of the denoise loop, or of a verb of the public interface. Its type
says what ``Method.build`` must return, so that the type checker reads every row. Everything special about a method is
in its row; instruments (docs, proof, benchmark, conformance) ask rows and kinds, never names.
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
    "identical": "token for token the text of plain decoding with the same seed, ties apart",
    "same distribution": "the distribution of plain decoding, other texts for the same seed",
    "valid": "the text satisfies a constraint",
    "lossy": "the text may differ from plain decoding's",
    "exact": "the stated optimum or code, found exactly",
}

EXTRAS = {"monitor": ("jedi",), "code": ("tree_sitter", "tree_sitter_python")}
"""Packages by the name with which ``pip install "unspool[NAME]"`` installs them."""


@dataclass(frozen=True)
class Kind(Generic[Product]):
    """A slot that methods fill.

    Attributes:
        name: what ``unspool methods --kind`` takes.
        title: heading of its methods in the docs.
        noun: what a message calls one of them.
        on_canvas: whether it is a part of the denoise loop.
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
    """Searches behind one prompt for a better text than greedy decoding's."""

    def __call__(self, request: SearchRequest) -> Found: ...


BeginConstraint: TypeAlias = "Callable[[Sequence[int]], Constraint]"
"""Makes the constraint of one sequence from the ids of its prompt."""

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
    """What must be there before a method can be built; checked once, before any work, by ``check``.

    Attributes:
        assistant: a draft model.
        tokenizer: the model's tokenizer.
        costs: the model's cost curve.
        reward: a reward of texts.
        abilities: that the backend must offer.
        taps: what is read of the model's inside.
        extra: of ``EXTRAS``: optional packages.
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
    """How a method is used, as its page shows it, where that is not how all methods of its kind are used.

    Attributes:
        shell: lines of a shell; empty: there is no command.
        python: lines of Python.
    """

    shell: str
    python: str


@dataclass(frozen=True)
class Case:
    """What ``unspool check`` runs a method on, where its own small model and prompts show nothing of the method.

    Attributes:
        options: with them the method must do something to what follows the prompts; on top of ``Method.trial``.
        prompts: of two different requests, in the tokens of ``conformance.small_model.PIECES``.
        complete: of a constraint: whether an output after the first prompt may end there; None: not known.
        reward: of a search that needs one.
        prepare: writes into a directory what is trained for a model, where the method needs it; any values do.
        during: what all checks run in, such as a cache of what is slow and not the method's own.
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
        kind: which slot it fills.
        guarantee: against plain decoding, see ``GUARANTEES``.
        summary: one sentence.
        paper: title and year, or what it is where there is no paper.
        options: frozen dataclass with the paper's defaults.
        build: makes what the kind's contract says from the resources of a request and the options.
        needs: what must be there.
        draws: of a drafter: whether it draws drafts under an acceptance rule that tests draws. If not, ``lossless``
            gives the text of plain sampling, token for token.
        at_temperature: of an acceptance rule: whether it is for temperature 0 (``zero``), for temperatures above 0
            (``above zero``), or for both.
        raw_prompt: of a constraint or a search: it reads the prompt as code, which no chat template is put around.
        validity: of a constraint: the module beside it that says whether its texts are valid (``outcomes``, ``JUDGE``).
        trial: options with which tests and proofs run it, where the defaults do nothing or are incomplete.
        sweep: of a part of the denoise loop: the specs that ``unspool tradeoff`` measures, by the name of their line;
            empty: the method with its trial options.
        example: how it is used, where the kind's own example does not fit.
        case: what ``unspool check`` runs it on, where the usual one does not fit.
        memory: what it learns across requests, in the user's ``memories`` and files; empty: nothing.
        trainer: module with the ``TRAINER`` that ``unspool train`` runs, such as ``.train`` beside the method; nothing
            else loads it. Empty: there is nothing to train.
        name: what the user types: the name of its file, which the registry fills in.
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
    """Raise an ``UnsupportedError`` if optional packages that the method needs are not installed, or broken."""
    extra = method.needs.extra
    if missing := [name for name in EXTRAS.get(extra or "", ()) if not _can_import(name)]:
        raise UnsupportedError(
            f'{method.name} needs {" and ".join(missing)}; pip install "unspool[{extra}]", or leave it out'
        )


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:  # not there, or built for another Python
        return False
    return True


def check_assisted(method: Method[Any, Any], assistant: object | None) -> None:
    """Raise an ``UnsupportedError`` if the method needs a draft model and there is none."""
    if method.needs.assistant and assistant is None:
        raise UnsupportedError(
            f"{method.name} needs a draft model; name a smaller one of the same tokenizer with --assistant-model "
            "(assistant_model=...)"
        )


def check_reward(method: Method[Any, Any], reward: object | None) -> None:
    """Raise an ``UnsupportedError`` if a reward is needed and missing, or given and not used."""
    if method.needs.reward and reward is None:
        raise UnsupportedError(f"{method.name} needs a reward of its texts; give one: reward=...")
    if reward is not None and not method.needs.reward:
        raise UnsupportedError(f"{method.name} takes no reward; leave it out")


def check(method: Method[Any, Any], resources: Resources) -> None:
    """Raise an ``UnsupportedError`` that says what is missing of what the method needs."""
    check_installed(method)
    check_assisted(method, resources.assistant)
    needs = method.needs
    for wanted, there, what in (
        (needs.tokenizer, resources.tokenizer, "the model's tokenizer"),
        (needs.costs, resources.costs, "the model's cost curve"),
    ):
        if wanted and there is None:
            raise UnsupportedError(f"{method.name} needs {what}; run through unspool.load(), which gives it")
    if needs.taps:
        from unspool.engine.taps import check as check_taps  # a look-up does without

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
