"""Guiding Language Models of Code with Global Context using Monitors (2023): identifiers that a static analyser knows.

After ``obj.`` an analyser lists the identifiers that may follow. Until the identifier ends, tokens that cannot spell
one of them are masked. Everywhere else, or if the analyser knows nothing, decoding is unchanged. Guarantee: such a dot
is followed by one of the analyser's identifiers, and then by something that ends it. The guarantee is as good as
the analyser (jedi for Python), which can be wrong about dynamic code, and covers no more: types are not checked.

Many tokenizers join a dot and the following letters into one token (``.append``). The paper's trigger, a text that ends
with a dot, never fires for them. Here such a token is verified: the analyser is asked about the position after its
inner dot. If only the choice matters, as in greedy decoding and in sampling without truncation, it is asked only if the
token that would be chosen contains a dot; if all probabilities are needed, about every position where a dot could come.

Departs from the paper: the position is read from the text alone, so drafted tokens need no rollback, and an identifier
that the prompt has begun is monitored too. Strings and comments are not, but fields of f-strings are. ``self.`` and
``cls.`` at the beginning of a statement are not: they may define an attribute. The text may end where an identifier
may.

Left out: monitors for classes after ``new`` and for enumerations, which do not apply to Python's grammar; typestate;
models without logits. The two monitors are ``dereference`` and, as an option, ``arguments``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Constraint
from unspool.engine.method import CONSTRAINT, BeginConstraint, Case, Example, Method, Needs
from unspool.engine.option import Options
from unspool.errors import UnspoolError
from unspool.methods.constraints.monitor.analyser import Analyser, Asked
from unspool.methods.constraints.monitor.arguments import ArgumentCount
from unspool.methods.constraints.monitor.dereference import Dereference, Identifier
from unspool.methods.constraints.monitor.jedi import JediAnalyser, shared_answers
from unspool.methods.constraints.monitor.masks import Vocabulary, monitor_vocabulary
from unspool.methods.constraints.monitor.scan import Scanner
from unspool.methods.resources import Resources


@dataclass(frozen=True)
class MonitorOptions(Options):
    """What is monitored, and with what knowledge.

    Attributes:
        project: directory whose packages the text may use; None: only installed ones are known.
        file: path that the text would have, for relative imports; it need not exist.
        arguments: whether calls may not be closed before their required arguments are written.
        verify: whether dots inside a token are monitored; False is the paper's method, to measure what it misses.
    """

    project: Path | None = None
    file: Path | None = None
    arguments: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.project is not None and not self.project.is_dir():
            raise UnspoolError(f"{self.project} is not a directory; name the one that contains the project's packages")


class MonitorConstraint:
    """Constraint of one sequence.

    Args:
        options: what is monitored.
        vocabulary: the tokens, as many as the model has logits.
        analyser: of the text's language.
        prompt: the text so far, all of it code.

    Attributes:
        asked: the analyser, with its counts.
        triggers: number of monitored identifiers in committed text.
        merged: number of dots inside committed tokens whose identifier was to be monitored.
        leaks: number of these whose identifier the analyser does not know; 0 with ``verify``.
    """

    def __init__(self, options: MonitorOptions, vocabulary: Vocabulary, analyser: Analyser, prompt: str) -> None:
        self.asked = Asked(analyser)
        self.triggers = self.merged = self.leaks = 0
        self._vocabulary = vocabulary
        self._dereference = Dereference(vocabulary, self.asked, options.verify)
        self._monitors: list[Dereference | ArgumentCount] = [self._dereference]
        if options.arguments:
            self._monitors.append(ArgumentCount(vocabulary, self.asked))
        text = prompt.encode()
        # By drafted path: its text and the position after it; None if the path itself is not allowed.
        self._places: dict[tuple[int, ...], tuple[bytes, Scanner] | None] = {(): (text, Scanner().read(text))}
        self._masks: dict[tuple[int, ...], NDArray[np.bool_] | None] = {}

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        key = tuple(path)
        if key not in self._masks:
            here = self._at(key)
            self._masks[key] = self._mask(*here) if here else None
        return self._masks[key]

    def is_allowed(self, path: Sequence[int], token: int) -> bool:
        here = self._at(tuple(path))
        if here is None:
            return True
        return all(monitor.is_allowed(*here, token) for monitor in self._monitors) or self.allowed(path) is None

    def forced(self) -> Sequence[int]:
        return ()

    def advance(self, tokens: Sequence[int]) -> None:
        for at, token in enumerate(tokens):
            here = self._at(tuple(tokens[:at]))
            if here is not None:
                self._count(list(self._dereference.identifiers(*here, token)))
        here = self._at(tuple(tokens))
        if here is None:
            raise ValueError(f"{list(tokens)} were committed, which the monitor does not allow")
        self._places = {(): here}
        self._masks.clear()

    def _at(self, path: tuple[int, ...]) -> tuple[bytes, Scanner] | None:
        if path not in self._places:
            here, token = self._at(path[:-1]), path[-1]
            if here is None or not self.is_allowed(path[:-1], token):
                self._places[path] = None
            else:
                text, place = here
                piece = self._vocabulary.texts[token]
                piece = b"\n" if piece is None else piece  # code does not continue after a special token
                self._places[path] = text + piece, place.copy().read(piece)
        return self._places[path]

    def _count(self, identifiers: list[Identifier]) -> None:
        self.triggers += len(identifiers)
        merged = [identifier for identifier in identifiers if identifier.merged]
        self.merged += len(merged)
        self.leaks += sum(not identifier.known for identifier in merged)

    def _mask(self, text: bytes, place: Scanner) -> NDArray[np.bool_] | None:
        masks = [found for monitor in self._monitors if (found := monitor.mask(text, place)) is not None]
        if not masks:
            return None
        mask: NDArray[np.bool_] = np.logical_and.reduce(masks)
        # A monitor must never mask everything: the model has to continue.
        return mask if mask.any() and not mask.all() else None


def _build(resources: Resources, options: MonitorOptions) -> BeginConstraint:
    assert resources.tokenizer is not None  # see Needs
    tokenizer = resources.tokenizer
    analyser = JediAnalyser(options.project, options.file)
    vocabulary = monitor_vocabulary(tokenizer, resources.model.vocab_size)

    def begin(prompt: Sequence[int]) -> Constraint:
        code = tokenizer.decode(prompt)
        # A token that begins every text is fine, but no token of a conversation.
        if tokenizer.decode(prompt[1:], skip_special_tokens=False) != tokenizer.decode(prompt[1:]):
            raise UnspoolError(
                "a monitor reads the prompt as code; leave the chat template out: --no-chat (chat=False)"
            )
        return MonitorConstraint(options, vocabulary, analyser, code)

    return begin


def _is_whole(output: str) -> bool | None:
    """Whether an output after ``a.``, where ``a`` is a tuple, ends with a whole name; None after another dot."""
    if "." in output:
        return None
    return output in ("count", "index") if re.fullmatch(r"\w*", output) else True


METHOD = Method(
    kind=CONSTRAINT,
    guarantee="valid",
    summary="Restricts identifiers after a dot to those that a static analyser of Python (jedi) knows.",
    paper="Guiding Language Models of Code with Global Context using Monitors (2023)",
    options=MonitorOptions,
    build=_build,
    needs=Needs(tokenizer=True, extra="monitor"),
    raw_prompt=True,
    validity="unspool.methods.constraints.monitor.validity",
    case=Case(prompts=("a=(1,)\na.", "ab=(1,)\nx=ab.co"), complete=_is_whole, during=shared_answers),
    example=Example(
        "unspool generate -m qwen2.5-coder-0.5b --constraint monitor:project=. --file unfinished.py",
        """
        import unspool

        model = unspool.load("qwen2.5-coder-0.5b")
        code = open("unfinished.py").read()
        print(model.generate(code, constraint="monitor:project=.").text)
        """,
    ),
)
