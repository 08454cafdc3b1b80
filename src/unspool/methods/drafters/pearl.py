"""PEARL: Parallel Speculative Decoding with Adaptive Draft Length (2024). Draft model and target run in parallel.

While the target scores one pass, the draft model writes its next ``num_assistant_tokens`` tokens in a thread. There
are two modes:

- *pre-verify*: the target scores the newest token alone. If its next token is the first token of the block that was
  drafted meanwhile, the rest of the block is pending and the mode becomes post-verify; else the block is dropped.
- *post-verify*: the target scores the pending tokens while the draft model continues after them, as if all were
  accepted. If they are and the target's next token is the first of the new block, the rest of that block is pending;
  else all drafts are dropped and the mode becomes pre-verify.

So long runs of agreement are never interrupted, and disagreement costs one block.

What it changes about plain decoding: a pass of the target yields one or several tokens, and drafting is hidden behind
the target's pass if both have a processor of their own. Guarantee: identical under the greedy and the same-noise rule.
Under the lossless rule the same distribution: drafts are the draft model's highest-probability tokens, as in
nano-PEARL, so they are point masses, and testing a block's first token means drawing from the target and comparing.

The block length should be the ratio of the two models' speeds; 4 by default, in the middle of the 3 to 5 of the paper's
scripts. The speedup needs cores that the target leaves idle: with ``threads`` at all cores, the two models compete.
Rows of a batch share the draft model, which writes their blocks one after the other. Left out: the variant that runs a
second copy of the draft model on the target's last pipeline stage, and sampled drafts under the lossless rule.
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

# One thread per draft model, since a model runs one pass at a time: blocks are written in the order of the requests.
_workers: WeakKeyDictionary[LanguageModel, ThreadPoolExecutor] = WeakKeyDictionary()


@dataclass(frozen=True)
class PearlOptions(Options):
    """Options of ``pearl``.

    Attributes:
        num_assistant_tokens: tokens of a block, at least 1; best at the ratio of the two models' speeds.
        overlap: whether the draft model runs during the target's pass; if not, before it. The tokens are the same.
    """

    num_assistant_tokens: int = option(4, least=1)
    overlap: bool = True


class Pearl:
    """Chains of tokens drafted during the previous pass.

    Args:
        model: the draft model; must not be the target itself, since both run at the same time.
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
        """A chain of the pending tokens that fit into ``budget``; starts drafting what follows all of them."""
        self.close()
        self._cancelled = threading.Event()
        # A copy, because the text grows while the draft model reads it.
        tokens = [*context.tokens, *self._pending]
        greedy = context.temperature == 0 or context.uses_draft_probs
        ahead = replace(context, tokens=tokens, temperature=0.0 if greedy else context.temperature)
        if self.options.overlap:
            self._block = _worker(self._assistant.model).submit(self._draft, ahead, self._cancelled)
        else:
            self._block = Future()
            self._block.set_result(self._draft(ahead, self._cancelled))
        return TokenTree.chain([context.tokens[-1], *self._pending[: budget - 1]], self.name)

    def _draft(self, context: Context, cancelled: threading.Event) -> list[int]:
        """The block after ``context.tokens``; shorter if cancelled or at the end of the draft model's context."""
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
        """Wait for the block; keep the tokens drafted after the emitted ones if the draft agrees with them."""
        assert self._block is not None, "propose comes first"
        block, self._block = self._block.result(), None
        self._pending = after([*self._pending, *block], step.emitted)

    def close(self) -> None:
        """Wait until the draft model is idle; an unfinished block is cut short and forgotten."""
        if self._block is not None:
            self._cancelled.set()
            if not self._block.cancel():
                wait([self._block])
            self._block = None


def after(drafted: Sequence[int], emitted: Sequence[int]) -> list[int]:
    """The drafted tokens after the emitted ones; empty if those differ from the draft or are longer."""
    agreed = tuple(drafted[: len(emitted)]) == tuple(emitted)
    return list(drafted[len(emitted) :]) if agreed else []


def _worker(model: LanguageModel) -> ThreadPoolExecutor:
    if model not in _workers:
        _workers[model] = ThreadPoolExecutor(1, thread_name_prefix="pearl")
    return _workers[model]


def _build(resources: Resources, options: PearlOptions) -> Pearl:
    assert resources.assistant is not None  # see Needs
    if resources.assistant is resources.language_model:
        raise UnsupportedError("pearl runs both models at once; load the draft model separately from the target")
    return Pearl(options, resources.assistant, resources.model.vocab_size)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="A draft model writes the next block while the target verifies the last one.",
    paper="PEARL: Parallel Speculative Decoding with Adaptive Draft Length (2024)",
    options=PearlOptions,
    build=_build,
    needs=Needs(assistant=True),
)
