"""The session of a model with ``Ability.CACHE_EDIT``."""

from __future__ import annotations

from typing import Protocol

from unspool.engine.contracts import Session


class EditableSession(Session, Protocol):
    """A session that can take cache entries from another session and move them to other positions.

    This is the only operation that cache editing needs besides ``fork``, ``rewind`` and scoring. To replace a range:
    fork, rewind to its start, score and commit the replacement, splice what followed the range. To remove a range: the
    same without a replacement. To refresh a range: the same with its own tokens.
    """

    def splice(self, source: Session, start: int, stop: int, *, rotate: bool = True) -> None:
        """Append the entries ``start`` to ``stop`` of ``source``, as if its tokens followed this session's.

        Keys are rotated to their new positions; values carry no position. The entries still reflect the preceding text
        of ``source``, so after another text the result is an approximation. A tree that was scored but not committed is
        discarded.

        Args:
            source: another session of the same model; left unchanged.
            start, stop: range of its tokens, ``0 <= start <= stop <= source.length``.
            rotate: False keeps the old rotation, which is right only if the positions do not change.

        Raises:
            ValueError: if the range exceeds ``source``, or ``source`` is this session.
            UnspoolError: if the text would exceed the model's context.
            UnsupportedError: if positions change and the model's keys do not use rotary positions.
        """
        ...
