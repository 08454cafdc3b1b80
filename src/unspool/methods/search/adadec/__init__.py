"""Towards Better Code Generation: Adaptive Decoding with Uncertainty Guidance (AdaDec, 2025).

Greedy decoding, except where the model is uncertain: if the entropy of the next token reaches a threshold tau, the
top-B tokens are each continued greedily for L tokens, and the one with the highest log-probability per token is taken.
Only that one token is committed; entropy is tested again at the next.

Lossy: a different text than greedy decoding's, meant to be better. With tau = inf, L = 0 or B = 1 it is greedy decoding
token for token. tau is learned for each model and weight format, because entropies depend on the weights.

Choices: a branch that ends (end of text, or the stopping rule of the request) keeps its sum and its length; the
reference adds log-probabilities of further tokens there. The length limit does not shorten a look-ahead, so a shorter
output is a prefix of a longer one; the model's context does. The reference scores every text from scratch; here the
distributions of the look-ahead are reused along the chosen branch.

Omitted: the outer beam, which is 1 in the paper's experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from unspool.engine.frontier import Frontier, roll_out
from unspool.engine.method import SEARCH, Example, Method
from unspool.engine.option import Options, option
from unspool.engine.search import Branch, Candidate, Distribution, Found, Output, SearchEvent, SearchRequest
from unspool.errors import UnspoolError
from unspool.methods.resources import Resources
from unspool.training.artifact import Artifact


@dataclass(frozen=True)
class AdaDecOptions(Options):
    """Defaults are the paper's. One of ``threshold`` and ``threshold_file`` is needed.

    Attributes:
        threshold: tau, in nats; ``inf`` never pauses.
        threshold_file: file that ``unspool train adadec`` wrote, with tau of this model.
        candidates: B, number of tokens compared at a pause; at least 1.
        lookahead: L, number of tokens that continue each of them; at least 0.
    """

    threshold: float | None = None
    threshold_file: str | None = option(None, check=partial(Artifact.load, method="adadec"))
    candidates: int = option(3, least=1)
    lookahead: int = option(5, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.threshold is None) == (self.threshold_file is None):
            raise UnspoolError(
                "adadec needs either threshold, or threshold_file from `unspool train adadec` for this model"
            )


@dataclass(frozen=True)
class PauseEvent(SearchEvent):
    """A step at which candidates were compared.

    Attributes:
        output: the tokens before it.
        entropy: of the next token, in nats.
        candidates: the top-B tokens, most likely first.
        lengths: m_i, look-ahead tokens of each.
        scores: S_i of each, log-probability per token of candidate and look-ahead.
        chosen: index of the chosen candidate.
    """

    output: Output
    entropy: float
    candidates: tuple[int, ...]
    lengths: tuple[int, ...]
    scores: tuple[float, ...]
    chosen: int


Unsure = Callable[[Output, Distribution], bool]
"""Whether to pause after an output."""
Choose = Callable[[Sequence[float]], int]
"""Index of the chosen candidate, by the scores."""


def adadec(request: SearchRequest, options: AdaDecOptions) -> Found:
    """Decode one prompt with ``options.threshold``; the only candidate is the text.

    ``counts``: ``pauses``; ``changed``, pauses that took another token than greedy decoding; ``lookahead_tokens``;
    ``recalled``, distributions reused from a look-ahead.
    """
    threshold = options.threshold
    assert threshold is not None, "see learned"
    return decode(request, options, lambda output, distribution: distribution.entropy >= threshold, best)


def learned(options: AdaDecOptions, resources: Resources) -> AdaDecOptions:
    """The options with the threshold of their file, if they name one.

    Raises:
        UnspoolError: if it was learned for another model or weight format.
    """
    if options.threshold_file is None:
        return options
    artifact = Artifact.load(options.threshold_file, "adadec")
    artifact.check(resources)
    return replace(options, threshold=float(artifact.tensor("threshold")), threshold_file=None)


def best(scores: Sequence[float]) -> int:
    """The largest score; the most likely candidate wins a tie."""
    return scores.index(max(scores))


def decode(request: SearchRequest, options: AdaDecOptions, unsure: Unsure, choose: Choose) -> Found:
    """The method with both of its rules as arguments, so that controls can replace one."""
    # Twice what one pause reads: the next pause may come within its look-ahead.
    remembered = 2 * options.candidates * options.lookahead
    pauses = changed = tokens = 0
    output: Output = ()
    logprob = 0.0
    with closing(
        Frontier(
            request.model,
            request.prompt,
            sessions=options.candidates,
            remembered=remembered,
            on_event=request.on_event,
        )
    ) as frontier:
        while (reason := request.finished(output)) is None:
            (distribution,) = frontier.read([output])
            token = distribution.best
            if unsure(output, distribution):
                pause = _pause(request, options, frontier, output, distribution, choose)
                token = pause.candidates[pause.chosen]
                pauses += 1
                changed += token != distribution.best
                tokens += sum(pause.lengths)
            logprob += distribution.logprob(token)
            output = (*output, token)
        counts = {
            "pauses": pauses,
            "changed": changed,
            "lookahead_tokens": tokens,
            "recalled": frontier.recalled,
        }
        candidate = Candidate(output, logprob, logprob, reason)
        return Found((candidate,), frontier.passes, frontier.evaluated_tokens, counts)


def _pause(
    request: SearchRequest,
    options: AdaDecOptions,
    frontier: Frontier,
    output: Output,
    distribution: Distribution,
    choose: Choose,
) -> PauseEvent:
    top = distribution.top(options.candidates)
    branches = [Branch((*output, token), logprob) for token, logprob in top]
    if len(branches) > 1:
        roll_out(frontier, branches, options.lookahead, request.ended)
    lengths = tuple(len(branch.output) - len(output) - 1 for branch in branches)
    scores = tuple(branch.logprob / (m + 1) for branch, m in zip(branches, lengths, strict=True))
    tokens = tuple(token for token, _ in top)
    event = PauseEvent(output, distribution.entropy, tokens, lengths, scores, choose(scores))
    request.on_event(event)
    return event


METHOD = Method(
    kind=SEARCH,
    guarantee="lossy",
    summary="Greedy decoding that looks a few tokens ahead where the model's entropy is high.",
    paper="Towards Better Code Generation: Adaptive Decoding with Uncertainty Guidance (2025)",
    options=AdaDecOptions,
    build=lambda resources, options: partial(adadec, options=learned(options, resources)),
    trial={"threshold": 1.0},  # learned for each model; 1 nat is the middle of the published values
    example=Example(
        'unspool search -m qwen2.5-coder-0.5b --method adadec:threshold=1.3 "Write a haiku about autumn."',
        """
        import unspool

        model = unspool.load("qwen2.5-coder-0.5b")
        print(model.search("Write a haiku about autumn.", method="adadec:threshold=1.3").text)
        """,
    ),
    trainer=".train",
)
