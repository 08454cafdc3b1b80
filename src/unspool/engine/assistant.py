"""A draft model: its session, kept in step with the text of one sequence, and how its tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Context, LanguageModel, Logits, Session
from unspool.engine.noise import draft_generator, gumbel
from unspool.engine.numeric import cooled, log_softmax, top_k
from unspool.engine.taps import Hidden, Taps
from unspool.engine.tree import DraftDistribution, TokenTree

_BLOCK = 128


class Assistant:
    """The draft model's session of one sequence.

    The session shares a prefix with the committed text: accepted drafts stay in its cache, the rest is rewound.

    Args:
        model: the draft model.
        vocab_size: of the target. Models of one tokenizer pad their output layers differently; logits are cut or filled
            up with -inf to this width.
        taps: what is read of the model's inside.

    Attributes:
        hidden: of the last ``score`` or ``step``, see ``Scores``. Valid until the next call.
    """

    def __init__(self, model: LanguageModel, vocab_size: int, taps: Taps | None = None) -> None:
        self.model = model
        self.hidden: Hidden | None = None
        self._taps = taps
        self._vocab_size = vocab_size
        self._session: Session | None = None
        self._first: Logits | None = None  # [1, vocabulary], right after the text last followed
        self._held: list[int] = []  # the tokens in the session
        self._waiting: list[int] = []  # tokens after them, fed with the next pass

    def levels(self, tokens: Sequence[int]) -> int:
        """How many tokens fit into the draft model's context after ``tokens``; at least 0."""
        return max(0, self.model.max_length - len(tokens))

    def _shared(self, tokens: Sequence[int]) -> int:
        wanted = min(len(self._held), len(tokens) - 1)
        return next((i for i in range(wanted) if self._held[i] != tokens[i]), wanted)

    def follow(self, tokens: Sequence[int]) -> None:
        """Bring the session to ``tokens`` without the last one, which is the root of the next tree.

        Missing tokens get passes of their own only if they do not fit into one pass together with the root.
        """
        if self._session is None:
            self._session = self.model.open(self._taps)
        self._first = None
        same = self._shared(tokens)
        if same < len(self._held):
            self._session.rewind(same)
            del self._held[same:]
        self._waiting = list(tokens[same:-1])
        self._feed(1)

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Logits:
        """Logits [rows, vocabulary] after nodes of a tree whose root follows the session's text. Commits nothing."""
        assert self._session is not None, "follow comes first"
        self._feed(None)
        scores = self._session.score(tree, rows)
        self.hidden = scores.hidden
        return self._seen(self._fitted(scores.logits))

    def step(self, token: int) -> NDArray[np.float32] | NDArray[np.float64]:
        """Logits [vocabulary] after ``token``, which is committed to the session."""
        assert self._session is not None, "follow comes first"
        fed = [*self._waiting, token]
        scores = self._session.score(TokenTree.chain(fed), rows=[len(fed) - 1])
        self.hidden = scores.hidden
        self._session.commit(range(len(fed)))
        self._held += fed
        self._waiting = []
        row: Logits = self._seen(self._fitted(scores.logits))[0]
        return row

    def first_ranking(self, k: int) -> list[int] | None:
        """The ``k`` highest-ranked ids right after the text last followed; None before its first pass."""
        return None if self._first is None else top_k(self._first, k)[0][0].tolist()

    def _seen(self, logits: Logits) -> Logits:
        """Every draft begins with a pass whose first row is the root's. Copied, since the next pass overwrites it."""
        if self._first is None:
            self._first = logits[:1].copy()
        return logits

    def _feed(self, more: int | None) -> None:
        """Commit the waiting tokens that do not fit into one pass together with ``more`` others; None: all of them."""
        assert self._session is not None
        while self._waiting:
            size = min(_BLOCK, self._session.max_depth)
            if more is not None and len(self._waiting) + more <= size:
                return
            block = self._waiting[:size]
            self._session.score(TokenTree.chain(block), rows=())
            self._session.commit(range(len(block)))
            self._held += block
            self._waiting = self._waiting[size:]

    def _fitted(self, logits: Logits) -> Logits:
        width = logits.shape[1]
        if width == self._vocab_size:
            return logits
        fitted = np.full((len(logits), self._vocab_size), -np.inf, dtype=logits.dtype)
        fitted[:, : min(width, self._vocab_size)] = logits[:, : self._vocab_size]
        return fitted


class Draws:
    """How the tokens of one draft are drawn, given the temperature and the acceptance rule.

    Greedy: the most likely tokens. Under a rule that uses draft probabilities: with fresh noise, and the rule receives
    the draft distribution. Otherwise with the noise of the position, the one that plain decoding draws with.

    Args:
        context: of the round.
        vocab_size: of the target.
        temperature: of the draft; the target's if None.
    """

    def __init__(self, context: Context, vocab_size: int, temperature: float | None = None) -> None:
        self._context = context
        self._vocab_size = vocab_size
        self._temperature = context.temperature if temperature is None else temperature
        self._rng = draft_generator(context.seed, len(context.tokens))

    @property
    def greedy(self) -> bool:
        return self._context.temperature == 0

    def logprobs(self, logits: Logits) -> NDArray[np.float64]:
        """[vocabulary] log-probabilities of the draft distribution; at temperature 0, those at temperature 1."""
        row = np.asarray(logits, dtype=np.float64)
        return log_softmax(row if self.greedy else cooled(row, self._temperature))

    def noise(self, depth: int) -> NDArray[np.float64] | float:
        """Gumbel noise [vocabulary] for the children of one node at this depth (root: 0). Use it once."""
        if self.greedy:
            return 0.0
        if self._context.uses_draft_probs:
            return self._rng.gumbel(size=self._vocab_size)
        return gumbel(self._context.seed, len(self._context.tokens) + depth, self._vocab_size)

    def distribution(self, logprobs: NDArray[np.float64]) -> DraftDistribution | None:
        """The distribution that siblings are drawn from, without replacement; None if no rule uses it."""
        if self.greedy or not self._context.uses_draft_probs:
            return None
        return DraftDistribution(np.exp(logprobs), replacement=False)

    def siblings(self, logits: Logits, depth: int, k: int) -> tuple[NDArray[np.int64], DraftDistribution | None]:
        """``k`` distinct tokens in draw order (Gumbel top-k), without those of probability 0, and their distribution.

        Args:
            logits: [vocabulary], of the parent node.
            depth: of that node.
        """
        logprobs = self.logprobs(logits)
        ids, keys = top_k((logprobs + self.noise(depth))[None], k)
        return ids[0][keys[0] > -np.inf], self.distribution(logprobs)
