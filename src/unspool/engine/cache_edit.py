"""What a session offers whose model has ``Ability.CACHE_EDIT``."""

from __future__ import annotations

from typing import Protocol

from unspool.engine.contracts import Session


class EditableSession(Session, Protocol):
    """A session that takes over cache entries of another one, moved to other positions.

    The one operation that cache surgery needs besides ``fork``, ``rewind`` and scoring. To replace a range: fork,
    rewind to its start, score and commit what comes instead, splice what stood behind it. To remove one: the same with
    nothing instead. To refresh one: the same with the tokens that it holds.
    """

    def splice(self, source: Session, start: int, stop: int, *, rotate: bool = True) -> None:
        """Append the entries ``start`` to ``stop`` of ``source``, as if its tokens stood behind those of this session.

        Keys get the rotation of their new positions; values carry none. What the entries say of the text before them
        stays that of ``source``: with another text there the result is an approximation. A tree that was scored and not
        committed is forgotten.

        Args:
            source: another session of the same model; it stays as it is.
            start, stop: range of its tokens, ``0 <= start <= stop <= source.length``.
            rotate: False keeps the rotation of the old positions, which is right only where they do not change.

        Raises:
            ValueError: if the range does not lie in ``source``, or ``source`` is this session.
            UnspoolError: if the text would outgrow the model's context.
            UnsupportedError: if positions change and the model's keys are not rotated by them.
        """
        ...
