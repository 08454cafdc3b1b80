"""Several contexts decoded as one model: classifier-free guidance, contrastive decoding, and model ensembles.

Each member is a model with its own prefix. The decoded text follows every prefix; the logits of a node are a function
of the members' logits. The loop, its drafters and rules see one ``LanguageModel``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from unspool.engine.contracts import Ability, LanguageModel, Logits, Scores, Session
from unspool.engine.prefill import extend
from unspool.engine.taps import Taps, check
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

Combine = Callable[[Sequence[Logits]], Logits]
"""Combined logits [rows, vocabulary] of the members' logits, each [rows, vocabulary], in their order."""


@dataclass(frozen=True)
class Member:
    """One of the contexts.

    Attributes:
        model: scores the text; members may share one.
        prefix: ids before the common text; may be empty.
    """

    model: LanguageModel
    prefix: Sequence[int] = ()


class Ensemble:
    """A ``LanguageModel`` that combines others.

    List the members' models in the request's ``assistants``, so that its thread also gets their turn.

    Args:
        members: at least one; all with the same vocabulary.
        combine: computes the logits; rows must not depend on each other.

    Raises:
        UnspoolError: if the members do not fit together.
    """

    def __init__(self, members: Sequence[Member], combine: Combine) -> None:
        if not members:
            raise UnspoolError("an ensemble needs at least one member")
        if len(sizes := {member.model.vocab_size for member in members}) > 1:
            raise UnspoolError(f"members of an ensemble need the same vocabulary, not sizes {sorted(sizes)}")
        self.members = tuple(members)
        self._combine = combine

    @property
    def vocab_size(self) -> int:
        return self.members[0].model.vocab_size

    @property
    def max_length(self) -> int:
        """Longest common text, in tokens."""
        return min(member.model.max_length - len(member.prefix) for member in self.members)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.members[0].model.widths

    @property
    def abilities(self) -> frozenset[Ability]:
        """None: the states of one member are not the ensemble's."""
        return frozenset()

    @property
    def layers(self) -> int:
        return 0

    @property
    def settings(self) -> dict[str, str]:
        """Settings of the first member, and the number of members."""
        return {**self.members[0].model.settings, "ensemble": str(len(self.members))}

    def open(self, taps: Taps | None = None) -> EnsembleSession:
        """An empty session, with the prefixes in the members' caches."""
        check(self, taps, "this request")
        sessions = []
        for member in self.members:
            session = member.model.open()
            extend(session, member.prefix)
            sessions.append(session)
        return EnsembleSession(self, sessions)

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """One batch per member; ``ms`` is the sum over members."""
        own = cast("Sequence[EnsembleSession]", sessions)
        parts: list[list[Scores]] = []
        for number, member in enumerate(self.members):
            scores = member.model.score_many([session.members[number] for session in own], trees, rows)
            # The next member may be the same model, whose next pass overwrites these.
            parts.append([Scores(one.logits.copy(), one.rows, one.ms) for one in scores])
        return [
            Scores(self._combine([one.logits for one in row]), row[0].rows, sum(one.ms for one in row))
            for row in zip(*parts, strict=True)
        ]


class EnsembleSession:
    """One common text; a ``Session``.

    Attributes:
        members: one session per member.
    """

    def __init__(self, ensemble: Ensemble, members: Sequence[Session]) -> None:
        self._ensemble = ensemble
        self.members = members

    @property
    def length(self) -> int:
        return self.members[0].length - len(self._ensemble.members[0].prefix)

    @property
    def max_depth(self) -> int:
        return min(session.max_depth for session in self.members)

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        return self._ensemble.score_many([self], [tree], [rows])[0]

    def commit(self, path: Sequence[int]) -> None:
        for session in self.members:
            session.commit(path)

    def rewind(self, length: int) -> None:
        for session, member in zip(self.members, self._ensemble.members, strict=True):
            session.rewind(len(member.prefix) + length)

    def fork(self) -> EnsembleSession:
        return EnsembleSession(self._ensemble, [session.fork() for session in self.members])

    def close(self) -> None:
        for session in self.members:
            session.close()
