"""The contracts between loops, methods and backends. A method declares what it needs, a backend what it offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool.engine.taps import Hidden, Taps
from unspool.engine.tree import TokenTree

Logits = NDArray[np.float32] | NDArray[np.float64]


class Ability(Enum):
    """Optional abilities of a language model. Declared by the backend, required by methods, never probed."""

    HIDDEN_STATES = "hidden states"
    LAYER_RANGE = "a range of layers"
    INPUT_EMBEDDINGS = "input embeddings instead of ids"
    ATTENTION_MAPS = "attention maps"
    CACHE_EDIT = "key/value cache editing"
    SPECIALISE_WIDTHS = "width specialisation"
    RECURRENT_STATE = "recurrent state"
    TRAINABLE = "training"


@dataclass(frozen=True)
class Scores:
    """The result of one pass over a tree.

    Attributes:
        logits: [number of rows, vocabulary]; row ``i`` belongs to node ``rows[i]``. The memory belongs to the session
            and is overwritten by its next pass.
        rows: the nodes whose logits were requested, ascending.
        ms: milliseconds of the pass, split evenly between the sessions of one batch.
        block_max: [number of rows, groups] maxima of equal blocks of the vocabulary, in order, if the graph computes
            them; top-k then need not read all logits.
        hidden: by tapped layer, [nodes, hidden size]; in the session's memory, like ``logits``. None without taps.
        attention: by tapped layer, [nodes, heads, committed tokens + nodes of the tree], each row sums to 1.
    """

    logits: Logits
    rows: tuple[int, ...]
    ms: float
    hidden: Hidden | None = None
    block_max: Logits | None = None
    attention: Hidden | None = None


class Session(Protocol):
    """One sequence on one model: the cache of its committed tokens."""

    @property
    def length(self) -> int:
        """Number of tokens whose cache entries are stored: the position of the root of the next tree."""
        ...

    @property
    def max_depth(self) -> int:
        """Maximum levels of the next tree, root included, for which logits do not depend on the tree's shape.

        At least 1. A deeper tree is scored correctly, but its sums may be grouped differently, so last bits change.
        """
        ...

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        """Logits after each node of ``rows`` (all nodes by default), each given the committed text and its own path.

        Stores nothing: call ``commit`` to keep nodes of the tree that was scored last.
        """
        ...

    def commit(self, path: Sequence[int]) -> None:
        """Keep the cache entries of these nodes of the last scored tree: a path from the root.

        A path and not a length, because recurrent layers cannot be cropped.
        """
        ...

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        ...

    def fork(self) -> Session:
        """An independent copy."""
        ...

    def close(self) -> None:
        """Free the memory of the cache. The session must not be used afterwards.

        Does not touch anything of the model: another thread may be in the middle of a pass.
        """
        ...


class LanguageModel(Protocol):
    """A loaded model: opens sessions and scores several of them in one ragged batch."""

    @property
    def vocab_size(self) -> int:
        """Length of a row of logits."""
        ...

    @property
    def max_length(self) -> int:
        """Longest text, prompt and output together, in tokens."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths in nodes, ascending, that passes are padded to; empty if passes are not padded."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]: ...

    @property
    def settings(self) -> dict[str, str]:
        """Everything that changes speed or rounding: backend, weights, threads, versions. Keys the calibration."""
        ...

    @property
    def layers(self) -> int:
        """Layers whose inputs can be read, see ``Taps``; 0 without ``Ability.HIDDEN_STATES``."""
        ...

    def open(self, taps: Taps | None = None) -> Session:
        """An empty session.

        Args:
            taps: what its scores contain besides the logits, which do not change by it.

        Raises:
            UnsupportedError: if the model does not have these taps.
        """
        ...

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """``score`` of each session on its own tree. Rows of unequal length are fine; the results are ``score``'s up to
        rounding."""
        ...


class SpecialisingModel(LanguageModel, Protocol):
    """A model with ``Ability.SPECIALISE_WIDTHS``: it can avoid the extra cost of a pass after another width."""

    def specialised(self, length: int) -> frozenset[int]:
        """Specialised widths after ``length`` tokens; empty before ``specialise_widths``.

        A pass of a specialised width costs the same after any other pass. The other widths share state: a pass costs
        more if the last pass among them had another width.
        """
        ...

    def warm_up(self) -> None:
        """Do at once the warm-up for all widths that the model otherwise does after some seconds of decoding."""
        ...

    def specialise_widths(self) -> None:
        """Specialise the frequent widths: costs seconds and memory, once. Logits do not change."""
        ...


class Backend(Protocol):
    """Loads models from a directory in Hugging Face layout. Rows of the entry-point group ``unspool.backends``."""

    name: str

    def load(self, directory: Path, **options: Any) -> LanguageModel: ...


@dataclass(frozen=True)
class Decision:
    """The decision of an acceptance rule on a scored tree.

    Attributes:
        path: accepted nodes, root first.
        token: the token after the last accepted node (bonus or residual); it becomes the next root.
    """

    path: tuple[int, ...]
    token: int


class Target(Protocol):
    """The model's own distribution after each node of the scored tree, shaped and constrained as in plain decoding.

    Rows are computed on first access, so a rule pays only for the nodes that it visits.
    """

    tree: TokenTree

    def choose(self, node: int) -> int:
        """The token that plain decoding takes after ``node``: the argmax, or the draw with the position's own noise."""
        ...

    def probabilities(self, node: int) -> NDArray[np.float64]:
        """float64 [vocabulary], sums to 1."""
        ...


class AcceptanceRule(Protocol):
    """Walks the tree from the root and decides which drafts are accepted.

    Attributes:
        uses_draft_probs: whether the rule tests drafts against the distributions that they were drawn from (rejection
            sampling). If so, a drafter draws from ``noise.draft_generator``, reports the distribution, and does not
            read the noise of positions, which the rule uses elsewhere. If not, the rule ignores distributions.
    """

    uses_draft_probs: bool

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        """The accepted path and the token after it.

        Args:
            rng: creates the generator of this round, which no other round draws from. Call it only when needed:
                creation costs more than a greedy decision.
        """
        ...


@runtime_checkable
class Shaper(Protocol):
    """Changes the logits of one node. It receives that node's own history, so it composes with drafting."""

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        """Return shaped logits.

        Args:
            tokens: [length] all ids before the decided position: prompt, output and the node's path.
            logits: [vocabulary]; must not be changed in place.
        """
        ...


@runtime_checkable
class Constraint(Protocol):
    """Decides which tokens may follow. The engine advances it along accepted tokens and queries drafted paths."""

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        """Mask [vocabulary] after the committed text and the drafted ``path``; None if everything is allowed.

        Also None after a path that is not allowed itself: none of it is ever emitted.
        """
        ...

    def forced(self) -> Sequence[int]:
        """Fast-forward (jump-forward) tokens: they must come next, so drafting is free; empty if there is a choice."""
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Advance over committed tokens."""
        ...


@runtime_checkable
class TokenChecker(Constraint, Protocol):
    """A constraint that can check a single token at less cost than its mask (lazy masking)."""

    def is_allowed(self, path: Sequence[int], token: int) -> bool:
        """Whether ``allowed(path)`` contains ``token``."""
        ...


@runtime_checkable
class Ending(Constraint, Protocol):
    """A constraint that knows when a text is complete and cannot continue."""

    def must_end(self) -> bool:
        """Whether the committed text is complete and only an end token may follow, as far as that is known.

        The text then ends with reason ``stop``, without a pass for its end token, which is not emitted.
        """
        ...


@dataclass(frozen=True)
class Context:
    """The state that a drafter may read.

    Attributes:
        tokens: all committed ids, prompt and output; the last one is the root of the next tree. Not a copy: read only.
        prompt_length: number of prompt tokens among them.
        seed: seed of the request's noise.
        temperature: of the target distribution; 0 is greedy. Drafters that sample draft at this temperature.
        uses_draft_probs: of the acceptance rule. If False and the temperature is above 0, a token is accepted if it
            equals the draw with its position's own noise, so draft with that noise.
    """

    tokens: Sequence[int]
    prompt_length: int
    seed: int
    temperature: float
    uses_draft_probs: bool = False


class Step(Protocol):
    """One pass, as drafters observe it: the logits of all scored nodes, including rejected ones.

    Attributes:
        ms: milliseconds of the pass, see ``Scores``.
    """

    tree: TokenTree
    decision: Decision
    emitted: tuple[int, ...]
    context: Context
    ms: float

    @property
    def logits(self) -> Logits:
        """[nodes, vocabulary] raw logits. Valid only during ``observe``."""
        ...

    def top_k(self, k: int) -> tuple[NDArray[np.int64], Logits]:
        """Ids and logits [nodes, k] of the ``k`` largest logits, best first, lowest id first among equals."""
        ...

    def alternatives(self, node: int, k: int) -> tuple[tuple[int, float], ...]:
        """The ``k`` most likely (id, log-probability) after ``node``, best first, shaped and constrained.

        At temperature 0, probabilities are those of the shaped logits at temperature 1. Valid only during ``observe``.
        """
        ...


class Drafter(Protocol):
    """Proposes trees for one sequence. State kept between requests is in a ``Memory``, which the user may own."""

    def start(self, context: Context) -> None:
        """Start a request: the prompt is in ``context``, nothing has been scored."""
        ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``budget`` nodes (root included, at least 1) whose root is ``context.tokens[-1]``."""
        ...

    def observe(self, step: Step) -> None:
        """Learn from a pass. ``step.context`` already contains the emitted tokens."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A drafter that works in the background, and so must be closed when its sequence ends for any reason."""

    def close(self) -> None:
        """Wait until its background work has stopped."""
        ...


@runtime_checkable
class Memory(Protocol):
    """What a method learns across requests. Changes speed, never text. Users own, save, load and reset it."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...

    def reset(self) -> None: ...
