"""A loaded language model: data only. The other files of this package have functions that take it.

It is here and not in ``models``, because methods are built from its resources, and their registry is above ``models``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from unspool import methods
from unspool.engine.contracts import Ability, LanguageModel, Memory, SpecialisingModel
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.progress import Progress, silent
from unspool.engine.turns import turn
from unspool.errors import UnspoolError
from unspool.models import calibration, identity, prompt_check
from unspool.models.tokenizer import Message, Tokenizer, vocabulary_fingerprint

Prompt = str | Sequence[Message] | Sequence[int]
Report = Callable[[str], None]


class LoadedModel:
    """A language model with its tokenizer, draft model and memories.

    Attributes:
        name: the name given to ``load``.
        key: hexadecimal hash of its content.
        language_model: scores tokens.
        tokenizer: from its directory.
        eos_token_ids: ids that end a text.
        assistant: the draft model, or None.
        memories: what methods have learned, by method name.
        report: receives a short description of each step of long work.
        building: lock held while a method is built, since drafters create missing memories.
    """

    def __init__(self, name: str, key: str, model: LanguageModel, tokenizer: Tokenizer, eos: Sequence[int]) -> None:
        self.name = name
        self.key = key
        self.language_model = model
        self.tokenizer = tokenizer
        self.eos_token_ids = frozenset(eos)
        self.assistant: LoadedModel | None = None
        self.memories: dict[str, Memory] = {}
        self.report: Report = lambda message: None
        self.building = threading.RLock()
        self._costs: PassCosts | None = None

    def cost_curve(self, progress: Progress = silent, fresh: bool = False) -> CostCurve:
        """Milliseconds by number of nodes on this machine; measured (under 10 s) if the cache has no curve."""
        return self._pass_costs(progress, fresh).curve

    def _pass_costs(self, progress: Progress = silent, fresh: bool = False) -> PassCosts:
        known = self._costs
        if known is not None and not fresh:
            return known
        with turn(self.language_model):
            if self._costs is not known and self._costs is not None:
                return self._costs  # another thread has measured in the meantime
            curve = None if fresh else calibration.load(self.language_model, self.key)
            if curve is None:
                self.report("measuring this machine's cost curve, once (10 s)")
                curve = calibration.calibrate(self.language_model, self.key, progress)
            separable = Ability.SPECIALISE_WIDTHS in self.language_model.abilities
            model = cast("SpecialisingModel", self.language_model) if separable else None

            def tell(message: str) -> None:
                self.report(message)  # whoever listens then

            self._costs = PassCosts(curve, model, tell)
            return self._costs

    def resources(
        self, memories: dict[str, Memory] | None = None, eos: frozenset[int] | None = None
    ) -> methods.Resources:
        """The resources that methods are built from.

        Args:
            memories: what methods have learned; the model's own if None.
            eos: ids that end a text; the model's own if None.
        """
        return methods.Resources(
            self.language_model,
            self.memories if memories is None else memories,
            self._pass_costs,
            self.assistant.language_model if self.assistant else None,
            lambda: vocabulary_fingerprint(self.tokenizer.vocabulary),
            self.tokenizer,
            self.eos_token_ids if eos is None else eos,
            keys=lambda: [
                identity.loaded(model.key, model.language_model.settings) for model in (self, self.assistant) if model
            ],
        )

    def encode(self, prompt: Prompt, chat: bool | None = None) -> list[int]:
        """Ids of a prompt.

        Args:
            prompt: text, a conversation (list of ``{"role", "content"}``), or ids, which are used as they are.
            chat: whether to use the chat template for text; by default if the model has one.

        Raises:
            UnspoolError: if the prompt is empty or of another type, or contains a token that the tokenizer has and the
                model has not.
        """
        prompt = prompt_check.checked(prompt)
        if isinstance(prompt, str):
            if chat or (chat is None and self.tokenizer.has_chat_template):
                ids = self.tokenizer.chat([{"role": "user", "content": prompt}])
            else:
                ids = self.tokenizer.encode(prompt)
        elif isinstance(prompt[0], Mapping):
            ids = self.tokenizer.chat(prompt)  # type: ignore[arg-type]
        else:
            return [int(token) for token in prompt]  # type: ignore[arg-type]
        size = self.language_model.vocab_size
        if unknown := sorted({self.tokenizer.token(token) for token in ids if token >= size}):
            raise UnspoolError(
                f"the prompt contains {unknown[0]!r}, which the tokenizer has but the model has not; leave it out"
            )
        return ids
