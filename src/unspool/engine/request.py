"""The request of the autoregressive loop, and the checks before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unspool.engine.contracts import AcceptanceRule, Constraint, Drafter, LanguageModel, Session, Shaper
from unspool.engine.options import GenerationOptions
from unspool.engine.probe import Probe
from unspool.engine.taps import Taps, joined
from unspool.engine.taps import check as check_taps
from unspool.engine.trace import FinishReason
from unspool.errors import UnspoolError


@dataclass(frozen=True)
class Request:
    """One sequence to decode.

    Attributes:
        tokens: ids of the prompt, at least one.
        drafter: proposes the trees. Rows of a batch must not share it (they may share its memory).
        rule: acceptance rule.
        options: of the request; ``options.shapers`` is replaced by ``shapers``.
        shapers: the whole pipeline in order, as made by ``unspool.methods.shaping._built_in.build``.
        eos: ids that end the text; the ending id is part of the output.
        method: name for the trace.
        constraint: advanced along the output. Its forced tokens replace the drafter's tree; the drafter then neither
            proposes nor observes that pass. An ``Ending`` constraint ends the text without an end token.
        stopping: called with each emitted token; if it returns a reason, the text ends after that token.
        session: a session of the model to start from, which contains the first tokens of the prompt but not all of
            them. The row uses it and closes it. None: a new one.
        assistants: other models that the drafter may run.
        probes: by name; each reads the states of every emitted token, one ``ProbeEvent`` per pass.
    """

    tokens: Sequence[int]
    drafter: Drafter
    rule: AcceptanceRule
    options: GenerationOptions
    shapers: Sequence[Shaper] = ()
    eos: frozenset[int] = frozenset()
    method: str = "plain"
    constraint: Constraint | None = None
    stopping: Callable[[int], FinishReason | None] | None = None
    session: Session | None = None
    assistants: Sequence[LanguageModel] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)

    @property
    def taps(self) -> Taps | None:
        """What the probes read."""
        return joined(probe.taps for probe in self.probes.values())


def check(model: LanguageModel, request: Request) -> None:
    """Refuse a request that cannot be served, before any work.

    Raises:
        UnsupportedError: for states that the model does not have.
        UnspoolError: empty prompt, ids outside the vocabulary, a text longer than the context, or a session that
            contains the whole prompt or more.
    """
    prompt, limit = len(request.tokens), model.max_length
    if not prompt:
        raise UnspoolError("the prompt is empty; give at least one token")
    if max(request.tokens) >= model.vocab_size or min(request.tokens) < 0:
        raise UnspoolError(
            f"the prompt contains a token id outside the model's vocabulary of {model.vocab_size}; "
            "use the tokenizer that belongs to the model"
        )
    if prompt >= limit:
        raise UnspoolError(f"the prompt has {prompt} tokens, the model's context {limit}; shorten the prompt")
    if prompt + request.options.max_new_tokens > limit:
        raise UnspoolError(
            f"prompt ({prompt}) and max_new_tokens ({request.options.max_new_tokens}) exceed the model's context of "
            f"{limit} tokens; set max_new_tokens to at most {limit - prompt}"
        )
    if request.session is not None and request.session.length >= prompt:
        raise UnspoolError(
            f"the session contains {request.session.length} tokens, the prompt has {prompt}; rewind it to at most "
            f"{prompt - 1}, because the last token of the prompt must be scored"
        )
    if request.probes and request.session is not None:
        raise UnspoolError("probes read the states of a session of their own; leave out the session, or the probes")
    check_taps(model, request.taps, f"probe {', '.join(request.probes)}")
