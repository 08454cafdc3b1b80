"""Conversations to ids: the chat template's own special tokens are special, those that a message spells are text.

The template is rendered by transformers. What a message holds is then found in the rendered text by rendering once more
with other letters in the messages' place, one for each letter without which no special token can be spelled: whatever
special token stands in that text, the template wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.errors import UnspoolError
from unspool.models.tokenizer_files import Settings

# Letters that stand for others: of no language, and of a script that no normaliser touches.
_PRIVATE, _TOKENS = range(0xF0000, 0xFFFFD), (range(0x100000, 0x10FFFD), range(0x14400, 0x14646))


class Chat:
    """Encodes conversations with a model's chat template.

    Args:
        fast: the tokenizer.
        settings: of it.
    """

    def __init__(self, fast: Fast, settings: Settings) -> None:
        self._fast = fast
        self._settings = settings
        self._spellers: dict[bool, _Speller] = {}

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a conversation. See ``Tokenizer.chat``."""
        if not messages:
            raise UnspoolError("the conversation is empty; give at least one message")
        plain = [_plain(message) for message in messages]
        text = self._render(plain)
        ids = self._fast.encode(text, add_special_tokens=False).ids
        # Tokens that open turns and are not special are taken for the template's, unless it reads them in messages.
        for every in (True, False):
            speller = self._speller(every)
            letters = speller.letters(plain, text)
            if not letters:
                return ids
            other = self._render([_hidden(message, partial(speller.hide, letters)) for message in plain])
            theirs = self._fast.encode(other, add_special_tokens=False).ids
            if speller.found(text, ids) == speller.found(other, theirs):
                return ids
            back = str.maketrans({new: old for old, new in letters.items()})
            if other.translate(back) == text:
                return speller.encode(other, back, theirs)
        raise UnspoolError(
            "the messages spell special tokens that the chat template reads or changes, so they cannot be kept apart "
            f"from the template's own ({', '.join(speller.named(ids, theirs))}); leave them out of the messages"
        )

    def _render(self, messages: list[dict[str, Any]]) -> str:
        # Imported here: transformers takes half a second, and raw prompts do not need it.
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (text,), _ = render_jinja_template(
                conversations=[messages],
                chat_template=self._template,
                add_generation_prompt=True,
                **self._settings.special_tokens,
            )
        except Exception as error:  # templates raise whatever jinja raises
            raise UnspoolError(f"the chat template refused the messages: {error}") from error
        return str(text)

    @property
    def _template(self) -> str:
        template = self._settings.chat_template
        if template is None:
            raise UnspoolError("this model has no chat template; use --no-chat (chat=False)")
        if isinstance(template, str):
            return template
        if "default" not in template:
            raise UnspoolError(
                f"this model has several chat templates and none by default ({', '.join(sorted(template))}); use "
                "--no-chat (chat=False)"
            )
        return template["default"]

    def _speller(self, every: bool) -> _Speller:
        if every not in self._spellers:
            added = {i: t for i, t in self._fast.get_added_tokens_decoder().items() if not t.content.isspace()}
            control = {i: token.content for i, token in added.items() if token.special}
            if every:
                named = self._settings.control_tokens
                written = self._around() if named is None else "\0".join(named)
                control |= {i: token.content for i, token in added.items() if token.content in written}
            other = {token.content for i, token in added.items() if i not in control}
            rare = f"{chr(_PRIVATE[0])} {chr(_TOKENS[1][0])}"
            unknown = frozenset(self._fast.encode(rare, add_special_tokens=False).ids)
            self._spellers[every] = _Speller(self._fast, control, other, unknown)
        return self._spellers[every]

    def _around(self) -> str:
        """What the template writes around messages. Some models open a turn with a token that is not special."""
        user, answer = {"role": "user", "content": ""}, {"role": "assistant", "content": ""}
        for messages in ([user, answer, user], [user]):
            try:
                return self._render(messages)
            except UnspoolError:  # it wants other messages
                continue
        return ""


@dataclass
class _Speller:
    """Tells a template's control tokens from what messages spell.

    Attributes:
        fast: the tokenizer.
        control: by id, the tokens that no message may write.
        other: added tokens that a message may write.
        unknown: ids of letters that no vocabulary holds; any text may have them.
    """

    fast: Fast
    control: dict[int, str]
    other: set[str]
    unknown: frozenset[int]

    def letters(self, messages: list[dict[str, Any]], text: str) -> dict[str, str]:
        """By letter of the messages that a control token cannot be spelled without, the one that stands for it."""
        used = {
            c
            for message in messages
            for s in _strings({k: v for k, v in message.items() if not _is_role(k, v)})
            for c in s
        }
        hidden = sorted(c for c in used if not c.isspace() and self._spells(c))
        taken = used | set(text)
        free = (c for c in map(chr, _PRIVATE) if c not in taken)
        letters = dict(zip(hidden, free, strict=False))
        if len(letters) < len(hidden):
            raise UnspoolError("the messages hold too many private characters; leave them out")
        return letters

    def hide(self, letters: dict[str, str], text: str) -> str:
        """A message's text with other letters; tokens that are left are left."""
        table = str.maketrans(letters)
        parts = self._left.split(text)
        return "".join(part if i % 2 else part.translate(table) for i, part in enumerate(parts))

    def found(self, text: str, ids: Iterable[int]) -> tuple[list[str], list[int]]:
        """The control tokens of a text, as it spells them and as the tokenizer finds them."""
        return self._pattern.findall(text), [i for i in ids if i in self.control and i not in self.unknown]

    def named(self, ids: Iterable[int], own: Iterable[int]) -> list[str]:
        """The control tokens among some ids that are not among others, or all of them."""
        control = {i for i in ids if i in self.control and i not in self.unknown}
        return sorted(self.control[i] for i in control - set(own) or control)

    def encode(self, text: str, back: dict[int, Any], own: Iterable[int]) -> list[int]:
        """Ids of a rendered text whose messages are written with other letters.

        Args:
            back: table of what those letters stand for.
            own: ids of that text, in which all control tokens are the template's.

        Raises:
            UnspoolError: if the tokenizer makes a control token of a message's text all the same.
        """
        fast, stands, known = self._renamed
        names = {content: name for name, content in stands.items()}
        marked = self._pattern.sub(lambda match: names[match[0]], text).translate(back)
        if not set(stands).isdisjoint(text.translate(back)):
            raise UnspoolError("the messages hold private characters beside special tokens; leave one of them out")
        encoded = [known.get(i, i) for i in fast.encode(marked, add_special_tokens=False).ids]
        if self.found("", encoded) != self.found("", own):
            raise UnspoolError(
                "the messages spell special tokens that this tokenizer cannot write as text "
                f"({', '.join(self.named(encoded, own))}); leave them out of the messages"
            )
        return encoded

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _pattern(self.control.values())

    @cached_property
    def _left(self) -> re.Pattern[str]:
        """Added tokens that stay as they are, since templates may read them; none that is a part of a control token."""
        readable = (token for token in self.other if not self._keys.isdisjoint(token))
        return _pattern(t for t in readable if not any(_overlap(t, content) for content in self.control.values()))

    @cached_property
    def _keys(self) -> frozenset[str]:
        """A letter of each control token; without them none can be spelled. Rare ones, so that few texts hold one."""
        return frozenset(
            next((c for c in content if not c.isalnum() and not c.isspace()), content.strip()[0])
            for content in self.control.values()
        )

    def _spells(self, letter: str) -> bool:
        if letter in self._keys:
            return True
        normalizer = self.fast.normalizer
        if normalizer is None:
            return False
        # Tokens may be looked for in the text behind the normaliser, which takes a wide < for a <.
        always = set(normalizer.normalize_str("0"))
        keys = {c for key in self._keys for c in normalizer.normalize_str(key)} | self._keys
        return not (set(normalizer.normalize_str(letter)) - always).isdisjoint(keys - always)

    @cached_property
    def _renamed(self) -> tuple[Fast, dict[str, str], dict[int, int]]:
        """The tokenizer with a private letter for the text of each control token; what each letter stands for; and ids
        of the one by those of the other."""
        written = json.loads(self.fast.to_str())
        written["post_processor"] = None
        names = dict(zip(self.control.values(), self._names(), strict=False))
        if len(names) < len(self.control):
            raise UnspoolError(
                "the messages spell special tokens, and this tokenizer leaves no letters to tell them from the "
                "template's own; leave them out of the messages"
            )
        ids = {names.get(token["content"], token["content"]): token["id"] for token in written["added_tokens"]}
        for token in written["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        renamed = Fast.from_str(json.dumps(written))
        known = {}
        for content, token_id in ids.items():
            here = renamed.token_to_id(content)
            assert here is not None
            known[here] = token_id
        plain = set(renamed.get_vocab(with_added_tokens=False).values())
        if any(new in plain and new != old for new, old in known.items()):
            raise UnspoolError(
                "the messages spell special tokens, and the ids of this tokenizer have gaps, so that they cannot be "
                "told from the template's own; leave them out of the messages"
            )
        return renamed, {name: content for content, name in names.items()}, known

    def _names(self) -> Iterator[str]:
        normalizer, used = self.fast.normalizer, set("".join(self.fast.get_vocab()))
        for block in _TOKENS:
            free = [chr(i) for i in block if chr(i) not in used][: len(self.control)]
            kept = normalizer is None or all(c in normalizer.normalize_str(c) for c in free)
            if kept and len(free) == len(self.control):
                yield from free
                return


def _pattern(contents: Iterable[str]) -> re.Pattern[str]:
    """Finds any of some texts, the longest first; one group."""
    longest = sorted(contents, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "((?!))")


def _overlap(one: str, other: str) -> bool:
    """Whether a text can hold both so that they share letters."""
    ends = any(other.startswith(one[i:]) for i in range(1, len(one))) or any(
        one.startswith(other[i:]) for i in range(1, len(other))
    )
    return ends or one in other or other in one


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of plain types. Keys without a value are left out, as transformers does."""
    if not isinstance(message, Mapping):
        raise UnspoolError(f"a message is a dictionary with role and content, not {message!r}")
    return {_checked(key): _checked(value) for key, value in message.items() if value is not None}


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {_checked(key): _checked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(item) for item in value]
    raise UnspoolError(f"a message holds texts, numbers, lists and dictionaries, not a {type(value).__name__}")


def _is_role(key: str, value: Any) -> bool:
    """Whether a value is a role by name: a template may make a token of its own of it."""
    return key == "role" and isinstance(value, str) and value.isidentifier()


def _hidden(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {
        key if _is_role(key, value) else change(key): value if _is_role(key, value) else _mapped(value, change)
        for key, value in message.items()
    }


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
