"""PEARL: Parallel Speculative Decoding with Adaptive Draft Length (2024). Draft and target work at the same time.

While the target scores one pass, the draft model writes its next ``num_assistant_tokens`` tokens in a thread. There
are two modes:

- *pre-verify*: the target scores the newest token alone. If what it takes next is the first token of the block that
  was drafted meanwhile, the rest of the block is pending and the mode is post-verify; else the block is dropped.
- *post-verify*: the target scores the pending tokens while the draft model goes on behind them, betting on all of them.
  If all are accepted and what the target takes next is the first token of the new block, the rest of that block is
  pending; else all drafts are dropped and the mode is pre-verify.

So long runs of agreement are never interrupted, and disagreement costs one block.

What it changes about plain decoding: one token or several leave a pass of the target, and the draft model's time hides
behind the target's where both have a processor of their own. Guarantee: identical under the greedy and the same-noise
rule. Under the lossless rule the same distribution: drafts are the draft model's likeliest tokens, as in nano-PEARL, so
they are point masses, and testing the first token of a block is drawing from the target and comparing.

The block length should be the ratio of the two models' speeds; 4 by default, in the middle of the 3 to 5 of the paper's
scripts. Speed needs cores that the target leaves idle: with ``threads`` at all of them, the two models compete.
Rows of a batch share the draft model, which writes their blocks one after the other. Left out: the variant that runs a
second copy of the draft model on the target's last pipeline stage, and drawing drafts under the lossless rule.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Step
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError
from unspool.methods.resources import Resources

# One thread a draft model, since a model runs one pass at a time: blocks are written in the order they were asked for.
_workers: WeakKeyDictionary[LanguageModel, ThreadPoolExecutor] = WeakKeyDictionary()


@dataclass(frozen=True)
class PearlOptions(Options):
    """Options of ``pearl``.

    Attributes:
        num_assistant_tokens: tokens of a block, at least 1; best at the ratio of the two models' speeds.
        overlap: whether the draft model works while the target does; if not, before it. Same tokens either way.
    """

    num_assistant_tokens: int = option(4, least=1)
    overlap: bool = True


class Pearl:
    """Chains of what was drafted during the pass before.

    Args:
        model: the draft model; not the target itself, since the two run at the same time.
        vocab_size: of the target.
    """

    name = "pearl"

    def __init__(self, options: PearlOptions, model: LanguageModel, vocab_size: int) -> None:
        self.options = options
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size
        self._pending: list[int] = []
        self._block: Future[list[int]] | None = None
        self._cancelled = threading.Event()

    @property
    def mode(self) -> Literal["pre", "post"]:
        """What the next pass verifies."""
        return "post" if self._pending else "pre"

    def start(self, context: Context) -> None:
        """Forget the last request; the draft model reads the prompt with the first block."""
        self.close()
        self._pending = []

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A chain of the pending tokens, as many as fit into ``budget``; starts drafting what may follow them all."""
        self.close()
        self._cancelled = threading.Event()
        # A copy, because the text grows while the draft model reads it.
        tokens = [*context.tokens, *self._pending]
        greedy = context.temperature == 0 or context.tests_draws
        ahead = replace(context, tokens=tokens, temperature=0.0 if greedy else context.temperature)
        if self.options.overlap:
            self._block = _worker(self._assistant.model).submit(self._draft, ahead, self._cancelled)
        else:
            self._block = Future()
            self._block.set_result(self._draft(ahead, self._cancelled))
        return TokenTree.chain([context.tokens[-1], *self._pending[: budget - 1]], self.name)

    def _draft(self, context: Context, cancelled: threading.Event) -> list[int]:
        """The block behind ``context.tokens``; shorter if cancelled or where the draft model's context ends."""
        length = min(self.options.num_assistant_tokens, self._assistant.levels(context.tokens))
        block: list[int] = []
        if length > 0:
            self._assistant.follow(context.tokens)
            draws = Draws(context, self._vocab_size)
            while len(block) < length and not cancelled.is_set():
                logits = self._assistant.step(block[-1] if block else context.tokens[-1])
                (token,), _ = draws.siblings(logits, len(block), 1)
                block.append(int(token))
        return block

    def observe(self, step: Step) -> None:
        """Wait for the block, and keep what was drafted behind the emitted tokens if those are what was drafted."""
        assert self._block is not None, "propose comes first"
        block, self._block = self._block.result(), None
        self._pending = after([*self._pending, *block], step.emitted)

    def close(self) -> None:
        """Wait until the draft model is idle; what it was writing is cut short and forgotten."""
        if self._block is not None:
            self._cancelled.set()
            if not self._block.cancel():
                wait([self._block])
            self._block = None


def after(drafted: Sequence[int], emitted: Sequence[int]) -> list[int]:
    """What of the drafted tokens follows the emitted ones; nothing if those differ from the draft or go beyond it."""
    agreed = tuple(drafted[: len(emitted)]) == tuple(emitted)
    return list(drafted[len(emitted) :]) if agreed else []


def _worker(model: LanguageModel) -> ThreadPoolExecutor:
    if model not in _workers:
        _workers[model] = ThreadPoolExecutor(1, thread_name_prefix="pearl")
    return _workers[model]


def _build(resources: Resources, options: PearlOptions) -> Pearl:
    assert resources.assistant is not None  # see Needs
    if resources.assistant is resources.language_model:
        raise UnsupportedError("pearl runs both models at once; load the draft model apart from the target")
    return Pearl(options, resources.assistant, resources.model.vocab_size)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Lets a draft model write the next block while the target scores the last one.",
    paper="PEARL: Parallel Speculative Decoding with Adaptive Draft Length (2024)",
    options=PearlOptions,
    build=_build,
    needs=Needs(assistant=True),
)
