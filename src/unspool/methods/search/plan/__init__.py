"""Planning with Large Language Models for Code Generation (PG-TD, ICLR 2023).

Monte Carlo tree search over tokens. Each simulation walks down the tree by a rule that mixes the best reward seen and
the model's probability (P-UCB), expands one prefix, lets the model complete it greedily, and backs up the reward of the
finished program along the path. The answer is the best program that was rewarded. The first one is greedy decoding's,
so the reward is never below that of greedy decoding.

Lossy: another text than greedy decoding's, of no smaller reward. Three caches save work and change nothing: the top
tokens along every completion (expanding those prefixes needs no pass), completed programs (a prefix of one completes to
it), and rewards. The reward must therefore be a function of the text alone.

Choices: the search does not walk into prefixes below which everything was tried, and it stops if many simulations in a
row needed no model; the reference loops there. A reward of 1 ends the search, since none is larger; the reference
spends its budget. Completions and tokens are both budgets; the reference counts completions and seconds.

Left out: re-rooting after each token, completion by sampling or by wider beams (the caches would be wrong with them),
the learned value model, and plain UCT.
"""

from __future__ import annotations

from functools import partial

from unspool.engine.method import SEARCH, Case, Example, Method, Needs
from unspool.engine.search import Found, SearchRequest
from unspool.methods.search.plan.planner import Planner, PlanOptions


def plan(request: SearchRequest, options: PlanOptions) -> Found:
    """Search from one prompt; candidates are all programs that were rewarded, scored by reward, first found first.

    ``counts``: ``simulations``; of these ``completions`` by the model and ``known_programs``; ``known_nodes``, expanded
    without a pass; ``known_rewards`` and ``rewards``, looked up and computed; ``best_reward``; and
    ``stopped_by_<reason>``.

    Raises:
        UnspoolError: without a reward, if the budget is smaller than one program, or for a reward outside [0, 1].
    """
    return Planner(request, options).run()


METHOD = Method(
    kind=SEARCH,
    guarantee="lossy",
    summary="Monte Carlo tree search for the program with the highest reward, such as the tests that it passes.",
    paper="Planning with Large Language Models for Code Generation (2023)",
    options=PlanOptions,
    build=lambda _, options: partial(plan, options=options),
    needs=Needs(reward=True),
    raw_prompt=True,
    case=Case({"max_completions": 12}),
    example=Example(
        "unspool search -m qwen2.5-coder-0.5b --method plan:max_model_tokens=4000 --file function.py",
        """
        import unspool
        from unspool.methods.search.plan.reward import PublicTests

        model = unspool.load("qwen2.5-coder-0.5b")
        prompt = open("function.py").read()
        reward = PublicTests(prompt)
        print(model.search(prompt, method="plan", reward=reward, stop_rule="function_body").text)
        """,
    ),
)
