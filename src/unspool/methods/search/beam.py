"""Beam search with the semantics of transformers' ``generate(num_beams=...)``: the usual baseline of a search.

Keeps the ``num_beams`` most likely unfinished outputs; each pass extends all of them by every token. Finished outputs
are ranked by log-probability / length ** length_penalty. Lossy: the text is often more likely than greedy decoding's.
With one beam it is greedy decoding, token for token.

As in transformers, an output counts as finished only if it is among the ``num_beams`` best continuations of its step.
The search ends once ``num_beams`` are finished and the best running one, at its present length, is no better than the
worst of them (``early_stopping=False``).

Left out: sampling, groups of beams, and the other values of ``early_stopping``.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial

from unspool.engine.frontier import Frontier
from unspool.engine.method import SEARCH, Case, Example, Method
from unspool.engine.search import Branch, Candidate, Found, SearchRequest
from unspool.errors import UnspoolError

MOST_BEAMS = 1024
"""Each step scores all beams; a larger number is most likely a typo."""


@dataclass(frozen=True)
class BeamOptions:
    """Defaults are transformers', except ``num_beams``, which is 1 there.

    Attributes:
        num_beams: running outputs, 1 to 1024; also the most candidates in the result.
        length_penalty: exponent of the length; above 0 it favours longer outputs.
    """

    num_beams: int = 3
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_beams <= MOST_BEAMS:
            raise UnspoolError(f"num_beams must lie in 1 to {MOST_BEAMS}, not {self.num_beams}")
        if not abs(self.length_penalty) < float("inf"):
            raise UnspoolError(f"length_penalty must be a finite number, not {self.length_penalty}")


def beam(request: SearchRequest, options: BeamOptions) -> Found:
    """Search from one prompt; candidates are the finished outputs, scored by log-probability / length ** penalty."""
    width = options.num_beams
    # This many continuations include `width` unfinished ones even if every end of text comes first.
    kept = max(2, 1 + len(request.eos)) * width
    running = [Branch(())]
    finished: list[Candidate] = []
    length = 0
    with closing(Frontier(request.model, request.prompt, sessions=width, on_event=request.on_event)) as frontier:
        while running:
            length += 1
            weight = length**options.length_penalty
            distributions = frontier.read([branch.output for branch in running])
            ranked = sorted(
                (
                    Branch((*branch.output, token), branch.logprob + logprob)
                    for branch, distribution in zip(running, distributions, strict=True)
                    for token, logprob in distribution.top(kept)
                ),
                key=lambda branch: -branch.logprob,
            )[:kept]
            running = []
            for rank, branch in enumerate(ranked):
                reason = request.finished(branch.output)
                if reason is None:
                    running.append(branch)
                elif rank < width:
                    finished.append(Candidate(branch.output, branch.logprob, branch.logprob / weight, reason))
            del running[width:]
            finished.sort(key=lambda candidate: -candidate.score)
            del finished[width:]
            if len(finished) == width and running and running[0].logprob / weight <= finished[-1].score:
                break
        return Found(tuple(finished), frontier.passes, frontier.evaluated_tokens, {"steps": length})


METHOD = Method(
    kind=SEARCH,
    guarantee="lossy",
    summary="Keeps the most likely unfinished texts at each step.",
    paper="beam search, as in transformers",
    options=BeamOptions,
    build=lambda _, options: partial(beam, options=options),
    case=Case({"num_beams": 3}),
    example=Example(
        'unspool search -m qwen2.5-coder-0.5b --method beam:num_beams=5 "Why is the sky blue?"',
        """
        import unspool

        model = unspool.load("qwen2.5-coder-0.5b")
        print(model.search("Why is the sky blue?", method="beam:num_beams=5").text)
        """,
    ),
)
