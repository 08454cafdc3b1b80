"""The contracts between loops, methods and backends. A method says what it needs, a backend what it offers."""

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
    CACHE_EDIT = "editing of the key/value cache"
    SPECIALISE_WIDTHS = "preparation of each width for itself"
    RECURRENT_STATE = "recurrent state"
    TRAINABLE = "training"


@dataclass(frozen=True)
class Scores:
    """What one pass over a tree returned.

    Attributes:
        logits: [number of rows, vocabulary]; row ``i`` belongs to node ``rows[i]``. The memory belongs to the session
            and is overwritten by its next pass.
        rows: the nodes whose logits were asked for, ascending.
        ms: milliseconds that the pass took, shared evenly between the sessions of one batch.
        block_max: [number of rows, groups] block maxima of the logits: the largest of each equal run of the
            vocabulary, in order, where the graph computes them; rankings then need not read all logits.
        hidden: by tapped layer, [nodes, hidden size]; in the memory of the session as ``logits``. None without taps.
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
        """Number of tokens whose cache entries are stored. The root of the next tree comes at this position."""
        ...

    @property
    def max_depth(self) -> int:
        """How many levels the next tree may have, root included, for its logits to be those of any other tree.

        At least 1. A deeper tree is scored correctly, but sums may be grouped differently, which changes last bits.
        """
        ...

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        """Logits after each node of ``rows`` (all nodes by default), each given the committed text and its own path.

        Stores nothing: call ``commit`` to keep nodes of the tree that was scored last.
        """
        ...

    def commit(self, path: Sequence[int]) -> None:
        """Keep the cache entries of these nodes of the last scored tree: a path that starts at the root.

        By path and not by length, because recurrent layers cannot be cropped.
        """
        ...

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        ...

    def fork(self) -> Session:
        """An independent copy."""
        ...

    def close(self) -> None:
        """Give the memory of the cache back. The session must not be used afterwards.

        Touches nothing that belongs to the model: another thread may be in the middle of a pass.
        """
        ...


class LanguageModel(Protocol):
    """A loaded model: opens sessions and scores several of them in one ragged batch."""

    @property
    def vocab_size(self) -> int:
        """Width of a row of logits."""
        ...

    @property
    def max_length(self) -> int:
        """Longest text, prompt and output together, in tokens."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of nodes, ascending, that passes are padded to; empty if a pass is as wide as its tree."""
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
            taps: what its scores contain besides logits, which stay the same bits.

        Raises:
            UnsupportedError: if the model has no such taps.
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
    """A model with ``Ability.SPECIALISE_WIDTHS``: a pass after one of another width costs more, but need not."""

    def specialised(self, length: int) -> frozenset[int]:
        """Widths that are prepared for themselves behind ``length`` tokens; empty before ``specialise_widths``.

        A pass of such a width costs the same after any other. A pass of any other width costs more where the last pass
        of those others had another width.
        """
        ...

    def warm_up(self) -> None:
        """Do now what the model does by and by to passes of all widths once it has decoded for some seconds."""
        ...

    def specialise_widths(self) -> None:
        """Prepare the widths that are frequent for themselves: takes seconds and memory, once. Logits stay the same."""
        ...


class Backend(Protocol):
    """Loads models from a directory in Hugging Face layout. Rows of the entry-point group ``unspool.backends``."""

    name: str

    def load(self, directory: Path, **options: Any) -> LanguageModel: ...


@dataclass(frozen=True)
class Decision:
    """What an acceptance rule made of a scored tree.

    Attributes:
        path: accepted nodes, root first.
        token: the token after the last accepted node (bonus or residual); it becomes the next root.
    """

    path: tuple[int, ...]
    token: int


class Target(Protocol):
    """The model's own distribution after each node of the scored tree, shaped and constrained as in plain decoding.

    Rows are computed when first asked for, so a rule pays only for the nodes it visits.
    """

    tree: TokenTree

    def choose(self, node: int) -> int:
        """The token that plain decoding takes after ``node``: the argmax, or the draw with the position's own noise."""
        ...

    def probabilities(self, node: int) -> NDArray[np.float64]:
        """float64 [vocabulary], sums to 1."""
        ...


class AcceptanceRule(Protocol):
    """Walks the tree from the root and decides which drafts stay.

    Attributes:
        uses_draft_probs: whether the rule tests drafts against the distributions that they were drawn from. If so, a
            drafter draws from ``noise.draft_generator``, states the distribution, and does not read the noise of
            positions, which the rule uses elsewhere. If not, the rule ignores distributions.
    """

    uses_draft_probs: bool

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        """The path that stays and the token after it.

        Args:
            rng: makes the generator of this round, which no other round draws from. Called only where it is needed:
                to make one costs more than a greedy decision.
        """
        ...


@runtime_checkable
class Shaper(Protocol):
    """Changes the logits of one node. Called with that node's own history, so it composes with drafting."""

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        """Return shaped logits.

        Args:
            tokens: [length] all ids before the position that is decided: prompt, output and the node's path.
            logits: [vocabulary]; must not be changed in place.
        """
        ...


@runtime_checkable
class Constraint(Protocol):
    """Which tokens may follow. The engine advances it along the accepted path and asks it about drafted ones."""

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        """Mask [vocabulary] after the committed text and the drafted ``path``; None where everything is allowed.

        Also None behind a path that is not allowed itself: nothing of it is ever emitted.
        """
        ...

    def forced(self) -> Sequence[int]:
        """Tokens that must come next, free to draft; empty where there is a choice."""
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Move over committed tokens."""
        ...


@runtime_checkable
class TokenChecker(Constraint, Protocol):
    """A constraint that can tell of one token what its mask would say, for less than the mask costs."""

    def is_allowed(self, path: Sequence[int], token: int) -> bool:
        """Whether ``allowed(path)`` holds ``token``."""
        ...


@runtime_checkable
class Ending(Constraint, Protocol):
    """A constraint that knows when a text is complete and cannot go on."""

    def must_end(self) -> bool:
        """Whether the committed text is complete and nothing but an end token may follow, as far as that is known.

        The text then ends with reason ``stop``; no pass is made for its end token, which is not emitted.
        """
        ...


@dataclass(frozen=True)
class Context:
    """What a drafter may look at.

    Attributes:
        tokens: all committed ids, prompt and output; the last one is the root of the next tree. Not a copy: read only.
        prompt_length: how many of them are the prompt.
        seed: seed of the request's noise.
        temperature: of the target distribution; 0 is greedy. Drafters that sample draft at this temperature.
        uses_draft_probs: of the acceptance rule. If False and the temperature is above 0, a token is right if it is
            the draw with its position's own noise, so draft with that noise.
    """

    tokens: Sequence[int]
    prompt_length: int
    seed: int
    temperature: float
    uses_draft_probs: bool = False


class Step(Protocol):
    """One pass, as drafters observe it: the logits of all scored nodes, rejected ones too.

    Attributes:
        ms: milliseconds that the pass took, see ``Scores``.
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
        """The ``k`` likeliest (id, log-probability) after ``node``, best first, shaped and constrained as in decoding.

        At temperature 0 that of the shaped logits at temperature 1. Valid only during ``observe``.
        """
        ...


class Drafter(Protocol):
    """Proposes trees for one sequence. What it keeps between requests lives in a ``Memory`` that the user may hold."""

    def start(self, context: Context) -> None:
        """A new request: the prompt is in ``context``, nothing has been scored."""
        ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``budget`` nodes (root included, at least 1) whose root is ``context.tokens[-1]``."""
        ...

    def observe(self, step: Step) -> None:
        """Learn from a pass. ``step.context`` already holds the emitted tokens."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A drafter that works in the background, and so must be told when its sequence is over, however it ended."""

    def close(self) -> None:
        """Wait until nothing of it runs any more."""
        ...


@runtime_checkable
class Memory(Protocol):
    """What a method learns across requests. Changes speed, never text. Users hold, save, load and reset it."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...

    def reset(self) -> None: ...
