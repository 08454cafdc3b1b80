"""Checks prompts before any work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unspool.engine.typed import shown, typed
from unspool.errors import UnspoolError


def checked(prompt: Any) -> Any:
    """One prompt: a text, a conversation, or ids. Arrays, tensors and generators of ids become lists.

    Raises:
        UnspoolError: for an empty prompt, and for anything else.
    """
    if isinstance(prompt, bytes | bytearray):
        raise UnspoolError("the prompt is bytes; give text: prompt.decode()")
    if isinstance(prompt, Mapping):
        raise UnspoolError("the prompt is one message; a conversation is a list of them: [message]")
    if isinstance(prompt, str):
        return typed("the prompt", str, prompt) if prompt else _no_prompt()
    if isinstance(prompt, set | frozenset) or not isinstance(prompt, Iterable):
        raise UnspoolError(f"the prompt must be a text, a list of messages or a list of token ids, not {shown(prompt)}")
    if hasattr(prompt, "tolist"):
        prompt = prompt.tolist()
        if not isinstance(prompt, list):
            raise UnspoolError("the prompt is a single number; token ids are a list")
    given = list(prompt)
    if not given:
        _no_prompt()
    if isinstance(given[0], Mapping):
        for message in given:
            if not isinstance(message, Mapping) or not all(
                isinstance(message.get(part), str) for part in ("role", "content")
            ):
                raise UnspoolError(f'a message of the prompt needs "role" and "content" as texts, not {shown(message)}')
            # Contents may be empty; anything but text would fail in the tokenizer.
            for part in ("role", "content"):
                if message[part]:
                    typed(f"{part} of a message", str, message[part])
        return given
    if isinstance(given[0], str):
        raise UnspoolError("the prompt is a list of texts; that is a batch, which only generate takes")
    ids: list[int] = typed("the prompt, if it is not a text,", list[int], given)
    return ids


def batch(prompt: Any) -> list[Any] | None:
    """The prompts of a batch: a list of texts, conversations or id lists; None for a single prompt.

    Raises:
        UnspoolError: for a list that mixes texts with other values.
    """
    if not isinstance(prompt, list | tuple) or not prompt:
        return None
    texts = sum(isinstance(one, str) for one in prompt)
    lists = sum(isinstance(one, list | tuple) or getattr(one, "ndim", 0) for one in prompt)
    if not texts and not lists:
        return None
    if texts + lists < len(prompt):
        wrong = next(one for one in prompt if not isinstance(one, str | list | tuple))
        raise UnspoolError(f"the prompt, a batch, contains {shown(wrong)}; give a text or a list of ids for each row")
    return list(prompt)


def _no_prompt() -> Any:
    raise UnspoolError("the prompt is empty; give some text")
