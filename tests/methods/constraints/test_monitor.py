"""Monitors against a definition on strings, place by place; on the toy model; with jedi on a small package."""

from __future__ import annotations

import io
import itertools
import json
import keyword
import re
import sys
import textwrap
import tokenize
from inspect import getsource
from pathlib import Path

import numpy as np
import pytest

import unspool
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.stubs import EmptyDrafter, OracleDrafter, RandomDrafter
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Constraint, TokenChecker
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import CONSTRAINT, DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods.constraints.monitor import MonitorConstraint, MonitorOptions
from unspool.methods.constraints.monitor.analyser import Parameter
from unspool.methods.constraints.monitor.arguments import complete
from unspool.methods.constraints.monitor.jedi import JediAnalyser
from unspool.methods.constraints.monitor.masks import Vocabulary
from unspool.methods.constraints.monitor.scan import Scanner
from unspool.methods.shaping import _built_in as shaping
from unspool.models.texts import token_texts

END = None  # the text of a special token


class Fake:
    """An analyser that looks its answers up by the text before the place, and notes what it was asked."""

    def __init__(self, names, signatures=None):
        self.names = names if callable(names) else lambda text: names.get(text, ())
        self.signed = signatures or {}
        self.asked = []

    def suggestions(self, text, offset):
        self.asked.append(text)
        return self.names(text[:offset])

    def signatures(self, text, offset):
        return self.signed.get(text[:offset], ())


def made(pieces, analyser, prompt="", **options):
    texts = [piece if piece is None else piece.encode() for piece in pieces]
    return MonitorConstraint(MonitorOptions(**options), Vocabulary(texts), analyser, prompt)


def allowed(constraint, pieces, *path):
    """The texts that may follow; None where everything may."""
    mask = constraint.allowed([pieces.index(piece) for piece in path])
    return None if mask is None else [piece for piece, fine in zip(pieces, mask, strict=True) if fine]


PIECES = ["obj", ".", "append", "app", "left", "end", "clear", "(", "clear(", ")", " ", "é", ".clear", ".no(", "", END]
DEQUE = {"obj.": ["append", "appendleft", "clear"]}


def test_a_name_from_its_dot_to_its_end():
    monitored = made(PIECES, Fake(DEQUE))
    assert allowed(monitored, PIECES, "obj", ".") == ["append", "app", "clear", "clear("]
    assert allowed(monitored, PIECES, "obj", ".", "app") == ["end"]
    # One name is the beginning of another one: both go on, and the end may come.
    breaks = [".", "(", ")", " ", ".clear", ".no(", END]
    assert allowed(monitored, PIECES, "obj", ".", "append") == [".", "left", *breaks[1:]]
    assert allowed(monitored, PIECES, "obj", ".", "app", "end", "left") == breaks
    assert allowed(monitored, PIECES, "obj", ".", "append", "(") is None
    assert allowed(monitored, PIECES, "obj", ".", "clear(") is None


def test_where_nothing_is_known_nothing_is_limited():
    for text in ("", "other.", "obj.zzz", "obj.append.", "'obj."):
        monitored = made(PIECES, Fake(DEQUE), text)
        assert monitored.allowed([]) is None
        assert monitored.is_allowed([], PIECES.index("left"))


def test_an_identifier_that_the_prompt_has_begun_goes_on():
    monitored = made(PIECES, Fake(DEQUE), "obj.app")
    assert allowed(monitored, PIECES) == ["end"]


def test_a_monitor_that_would_leave_nothing_is_silent():
    monitored = made(["x", "."], Fake({"x.": ["y"]}), "x.")
    assert monitored.allowed([]) is None
    assert monitored.is_allowed([], 0)


def test_open_brackets_are_closed_for_a_second_question():
    def names(text):
        return ["a"]

    fake = Fake(names)
    fake.suggestions = lambda text, offset: (fake.asked.append((text, offset)), ["b" if text.endswith("]}") else "a"])[
        1
    ]
    monitored = made(["a", "b", "c"], fake, "{[x.")
    assert allowed(monitored, ["a", "b", "c"]) == ["a", "b"]
    assert fake.asked == [("{[x.", 4), ("{[x.]}", 4)]


@pytest.mark.parametrize(
    ("text", "dot"),
    [
        ("x.", True),
        ("f(x).", True),
        ("x[0].", True),
        ("''.", True),
        ("'''a'b'''.", True),
        ("''.join('').", True),
        ("(x\n  # note\n  .", True),
        ("x \\\n  .", True),
        ("x\n.", False),
        ("# x.", False),
        ("# x\ny.", True),
        ("'x.", False),
        ("'a\\'x.", False),
        ("'a\\\\'.", True),
        ("'a\nx.", True),
        ('"""a\nx.', False),
        ('"""a"" x.', False),
        ('""" "\'""" + x.', True),
        ("r'\\' x.", False),
        ("f'{x.", True),
        ("f'{x.y} z.", False),
        ("f'{{x.", False),
        ("f'{x:{y.", True),
        ("f'{x:>4.", False),
        ("f'{x:{y.z}}' + x.", True),
        ("rb'{x.", False),
        ("f'{d['a'].", True),
        ("1.", False),
        ("1.5.", False),
        ("0x1f.", False),
        ("x1.", True),
        ("from .", False),
        ("from a.", True),
        ("return .", False),
        ("True.", True),
        ("x..", False),
        ("x.a.", True),
        ("x.class.", True),
        ("x. ", False),
        ("[.", False),
        ("].", True),
        ("é.", True),
    ],
)
def test_which_dots_dereference(text, dot):
    assert (Scanner().read(text.encode()).dot >= 0) == dot


@pytest.mark.parametrize("module", ["argparse", "textwrap", "dataclasses", "typing", "json.decoder", "string"])
def test_dots_and_brackets_of_real_files_are_those_of_tokenize(module):
    source = getsource(__import__(module, fromlist=["*"]))
    starts = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    real, previous = set(), None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if token.type == tokenize.OP and token.string == ".":
            named = previous.type == tokenize.NAME and previous.string not in set(keyword.kwlist) - {"True", "False"}
            if named or previous.type == tokenize.STRING or previous.string in (")", "]", "}"):
                real.add(starts[token.start[0] - 1] + token.start[1])
        previous = token
    scanner, found = Scanner(), set()
    for at, byte in enumerate(source.encode()):
        scanner.step(byte)
        if scanner.dot == at and not any(frame.is_text for frame in scanner.open):
            found.add(at)
    assert source.isascii() and found == real and len(real) > 20
    assert not scanner.open and not scanner.closers


SYLLABLES = [
    "a",
    "b",
    "_",
    "ab",
    "ba",
    ".",
    "(",
    ")",
    " ",
    ".a",
    ".ab",
    "b.a",
    ").b",
    ".a.b",
    ".b(",
    "(a.",
    "..",
    "a(b",
    "",
]
NAMES = ["a", "ab", "aba", "b_", "bb"]


def known(text):
    """Some names or none, the same ones whenever the text is the same."""
    rng = np.random.default_rng([len(text), *text.encode()])
    return [name for name in NAMES if rng.random() < 0.5] if rng.random() < 0.8 else []


def may_follow(text, piece, verify):
    """The definition, on strings: every identifier that ``piece`` touches behind a dot that dereferences."""
    if piece is None:
        piece = "\n"
    whole, active = text + piece, False
    for dot in range(len(whole)):
        before = whole[:dot].rstrip(" ")
        if whole[dot] != "." or not before or before[-1] not in "ab_)":
            continue
        name = re.match(r"[ab_]*", whole[dot + 1 :]).group()
        end = dot + 1 + len(name)
        inner = dot >= len(text)
        if end < len(text) or (inner and (not name or not verify)):
            continue
        names = known(whole[: dot + 1])
        begun = "" if inner else whole[dot + 1 : len(text)]
        if not any(other.startswith(begun) for other in names):
            continue
        active = active or not inner
        if end < len(whole) and name not in names:
            return False
        if end == len(whole) and not any(other.startswith(name) for other in names):
            return False
    return not active or bool(piece)


@pytest.mark.parametrize("verify", [True, False])
def test_masks_are_those_of_the_definition_on_random_vocabularies(verify):
    rng = np.random.default_rng(7)
    limited = 0
    for _ in range(30):
        count = int(rng.integers(8, len(SYLLABLES)))
        pieces = [*rng.permutation(SYLLABLES)[:count].tolist(), END]
        prompt = "".join(rng.choice(["a", "ab.", "(b", ").", " ", "_.a"], size=rng.integers(1, 5)))
        shared = made(pieces, Fake(known), prompt, verify=verify)
        for _ in range(40):
            path, text, dead = rng.integers(0, count, rng.integers(0, 4)).tolist(), prompt, False
            for token in path:
                here = [may_follow(text, piece, verify) for piece in pieces]
                dead = dead or (any(here) and not here[token])
                text += pieces[token]
            right = [may_follow(text, piece, verify) for piece in pieces]
            free = dead or all(right) or not any(right)
            # A place is the same however it was reached, and whatever was asked before.
            committed = made(pieces, Fake(known), prompt, verify=verify)
            if not dead:
                committed.advance(path)
            for constraint, asked in [(shared, path), *([] if dead else [(committed, [])])]:
                mask = constraint.allowed(asked)
                assert (mask is None) == free, (pieces, text, right)
                assert free or mask.tolist() == right, (pieces, text)
                verdicts = [constraint.is_allowed(asked, token) for token in range(len(pieces))]
                assert verdicts == ([True] * len(pieces) if free else right)
            limited += not free
    assert limited > 200


def test_drafted_places_ask_nothing_again():
    fake = Fake(DEQUE)
    monitored = made(PIECES, fake, "obj")
    path = [PIECES.index(piece) for piece in (".", "app", "end", "left")]
    for length in range(4):
        monitored.is_allowed(path[:length], path[length])
    monitored.advance(path[:2])
    monitored.is_allowed([], path[2])
    assert fake.asked == ["obj."]


def test_what_was_not_allowed_cannot_be_committed():
    monitored = made(PIECES, Fake(DEQUE), "obj.")
    with pytest.raises(ValueError, match="does not allow"):
        monitored.advance([PIECES.index("left")])


def test_the_leak_of_merged_dots():
    no, clear = PIECES.index(".no("), PIECES.index(".clear")
    leaking = made(PIECES, Fake(DEQUE), "obj", verify=False)
    assert leaking.allowed([]) is None and leaking.is_allowed([], no)
    leaking.advance([no])
    assert (leaking.triggers, leaking.merged, leaking.leaks) == (1, 1, 1)
    cured = made(PIECES, Fake(DEQUE), "obj")
    assert not cured.is_allowed([], no)
    assert allowed(cured, PIECES) == [piece for piece in PIECES if piece != ".no("]
    cured.advance([clear])
    assert (cured.triggers, cured.merged, cured.leaks) == (1, 1, 0)
    assert not cured.is_allowed([], PIECES.index("left"))


def test_one_question_is_not_asked_where_the_choice_holds_no_dot():
    fake = Fake(DEQUE)
    monitored = made(PIECES, fake, "obj")
    assert all(monitored.is_allowed([], PIECES.index(piece)) for piece in ("(", ".", " ", "left", END))
    assert not fake.asked


def test_new_attributes_may_be_made():
    pieces = ["new", "old", "."]
    names = Fake(lambda text: ["old"])
    assert allowed(made(pieces, names, "def f(self):\n    self."), pieces) is None
    assert allowed(made(pieces, names, "def f(self):\n    x = self."), pieces) == ["old"]
    assert allowed(made(pieces, names, "f(\n    self."), pieces) == ["old"]
    assert allowed(made(pieces, names, "    itself."), pieces) == ["old"]


def test_an_analyser_that_fails_is_told_and_limits_nothing():
    def broken(text):
        raise RecursionError("deep")

    monitored = made(PIECES, Fake(broken), "obj.")
    with pytest.warns(RuntimeWarning, match="deep"):
        assert monitored.allowed([]) is None
    assert monitored.asked.failures == 1


X, Y, N = Parameter("x", True, True), Parameter("y", False, True), Parameter("n", True, False)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ("", False),
        ("1", False),
        ("1, n=2", True),
        ("n=2", False),
        ("n=2, x=1", True),
        ("1, 2, n=')('", True),
        ("*a", True),
        ("**a", True),
        ("lambda a, b: 0, n=2", True),
        ("[1, 2]", False),
        ("1, n=2 # no", True),
        ("1 2", True),
    ],
)
def test_when_required_arguments_are_there(arguments, right):
    assert complete((X, Y, N), arguments.encode()) == right


CALLS = ["f", "(", ")", "()", "))", "1", "1)", ",", "'", "')", "):", "g("]


def test_a_call_is_not_closed_before_its_arguments_are_there():
    fake = Fake({}, {"f(": [(X,)], "f(f(": [(X,)], "h(": [(X,), ()], "def f(": [(X,)]})
    monitored = made(CALLS, fake, arguments=True)
    closing = ["))", ")", "):"]
    everything = set(CALLS)
    assert set(allowed(monitored, CALLS, "f")) == everything - {"()"}
    assert set(allowed(monitored, CALLS, "f", "(")) == everything - set(closing)
    assert allowed(monitored, CALLS, "f", "(", "1") is None
    assert set(allowed(monitored, CALLS, "f", "(", "f")) == everything - {"()"}
    assert allowed(monitored, CALLS, "f", "(", "'") is None
    assert allowed(made(CALLS, fake, "h", arguments=True), CALLS, "(") is None
    assert allowed(made(CALLS, fake, "def f", arguments=True), CALLS, "(") is None
    assert allowed(made(CALLS, fake, "# f(", arguments=True), CALLS) is None
    assert allowed(made(CALLS, fake), CALLS, "f", "(") is None
    for length in range(4):
        for path in itertools.product(range(len(CALLS)), repeat=length):
            if length == 3 and path[0] != 0:
                continue
            mask = monitored.allowed(path)
            verdicts = [monitored.is_allowed(path, token) for token in range(len(CALLS))]
            assert verdicts == ([True] * len(CALLS) if mask is None else mask.tolist())


LETTERS = ["x", ".", "a", "b", "(", ".a", ".b", END]
EOS = 7
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))


def names_of_toys(text):
    """What may follow depends on what stands before, so that a stale place would show."""
    return [["ab"], ["a", "bb"], []][(text.count("b") + text.count("(")) % 3]


def run(options, constraint, drafter, rule=None):
    model = ToyModel.random(vocab_size=8, order=2, seed=3, eos_token_id=EOS)
    resources = methods.Resources(model, costs=lambda: PassCosts(CURVE), assistant=model.related(0.7, seed=2))
    drafting = drafter if not isinstance(drafter, str) else methods.build(drafter, DRAFTER, resources)
    request = Request(
        [0],
        drafting,
        methods.acceptance_rule(rule, options.greedy, resources),
        options,
        shaping.build(options),
        frozenset({EOS}),
        constraint=constraint,
    )
    steps = [event for event in decode(model, [request]) if isinstance(event, StepEvent)]
    return [token for step in steps for token in step.emitted], [margin for step in steps for margin in step.margins]


class Unhurried:
    """A constraint that is always asked for its mask."""

    def __init__(self, inner):
        self.allowed, self.advance, self.forced = inner.allowed, inner.advance, inner.forced


def toy_monitor(names=names_of_toys, **options):
    return made(LETTERS, Fake(names), "x", **options)


@pytest.mark.parametrize("drafter", ["prompt_lookup", "draft_model", "token_recycling", "random", "perfect"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 4}])
def test_every_drafter_gives_the_text_of_the_monitor_alone(drafter, options):
    assert isinstance(toy_monitor(), TokenChecker) and not isinstance(Unhurried(toy_monitor()), TokenChecker)
    for seed in range(6):
        wanted = GenerationOptions(max_new_tokens=16, seed=seed, **options)
        alone, _ = run(wanted, Unhurried(toy_monitor()), EmptyDrafter())
        stubs = {"random": RandomDrafter(8, seed=5), "perfect": OracleDrafter([0, *alone])}
        drafted, _ = run(wanted, toy_monitor(), stubs.get(drafter, drafter))
        assert drafted == alone
        text = "x" + "".join(LETTERS[token] or "\n" for token in alone)
        for found in re.finditer(r"(?<=[xab(])\.([xab]+)", text):
            names = names_of_toys(text[: found.start() + 1]) if text[found.start() - 1] != "(" else []
            whole = found.end() < len(text)
            assert not names or any(n == found[1] if whole else n.startswith(found[1]) for n in names)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 4}])
def test_without_an_active_monitor_decoding_is_bit_identical(options):
    for seed in range(4):
        wanted = GenerationOptions(max_new_tokens=24, seed=seed, **options)
        silent = toy_monitor(lambda text: [])
        assert run(wanted, silent, EmptyDrafter()) == run(wanted, None, EmptyDrafter())
    assert isinstance(silent, Constraint) and silent.triggers == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "fleet").mkdir()
    (root / "fleet" / "__init__.py").write_text("")
    (root / "fleet" / "crew.py").write_text(
        textwrap.dedent("""
            class Rover:
                def __init__(self, name, *, wheels=4):
                    self.plate = name
                def dig_trench(self, depth, width=1):
                    return Crate()
            class Crate:
                lid_open = False
            class Loose:
                def __getattr__(self, name):
                    return 1
        """)
    )
    return root


HEAD = "from fleet.crew import Rover, Loose\nr = Rover('a')\n"


def test_jedi_knows_the_project(project, monkeypatch):
    jedi = JediAnalyser(project)

    def names(text, after=""):
        return {name for name in jedi.suggestions(text + after, len(text)) if not name.startswith("_")}

    assert names(HEAD + "r.") == {"plate", "dig_trench"}
    assert names(HEAD + "print(r.", ")\n") == {"plate", "dig_trench"}
    assert names(HEAD + "if r.dig_trench(3).") == {"lid_open"}
    assert names("unheard_of.") == set() and not jedi.suggestions(HEAD + "Loose().", len(HEAD) + 8)
    assert names("from fleet.") == {"crew"}
    for text, special in (
        ("r.", False),
        ("Rover.", True),
        ("class A(Rover):\n    def f(self):\n        super().", True),
        ("class A(Rover):\n    def f(self):\n        super(A, self).", True),
    ):
        found = jedi.suggestions(HEAD + text, len(HEAD + text))
        assert ("__init__" in found) == special and "__class__" in found and "dig_trench" in found
    inside = JediAnalyser(project, project / "fleet" / "new.py")
    text = "from .crew import Crate\nCrate."
    assert "lid_open" in inside.suggestions(text, len(text))
    monkeypatch.chdir(project)
    assert not JediAnalyser().suggestions("import fleet\nfleet.", 19)
    (signature,) = jedi.signatures(HEAD + "r.dig_trench(", len(HEAD + "r.dig_trench("))
    assert signature == (Parameter("depth", True, True), Parameter("width", False, True))
    (signature,) = jedi.signatures(HEAD + "Rover(", len(HEAD + "Rover("))
    assert signature == (Parameter("name", True, True), Parameter("wheels", False, False))


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    root = tmp_path_factory.mktemp("dynamic")
    (root / "lazy.py").write_text('known = 1\ndef __getattr__(name):\n    if name == "later": return 2\n')
    (root / "linked.py").write_text("__getattr__, __dir__ = attach()\nknown = 1\n")
    (root / "parts.py").write_text(
        textwrap.dedent("""
            import abc, enum
            class Empty: pass
            class Slots:
                __slots__ = ("p", "q")
            class Filled:
                def __init__(self):
                    for name in ("alpha", "beta"): setattr(self, name, 1)
                def real(self): pass
            class Updated:
                def __init__(self, **given): self.__dict__.update(given)
                def real(self): pass
            class Heir(Filled):
                def own(self): pass
            class Fixed:
                def __init__(self): self.real = 1
                def put(self, name, value): setattr(self, name, value)
            class Meta(type):
                def made(cls): pass
            class Made(metaclass=Meta): pass
            class Abstract(abc.ABC, metaclass=abc.ABCMeta):
                def real(self): pass
            class Color(enum.Enum):
                RED = 1
        """)
    )
    return JediAnalyser(root)


@pytest.mark.parametrize(
    ("code", "some"),
    [
        # Nothing but special names is left, or a class makes attributes that have no name in it: no answer.
        ("Empty()", None),
        ("Slots()", None),
        ("(lambda: 1)", None),
        ("Filled()", None),
        ("Updated(a=1)", None),
        ("Heir()", None),
        ("Made", None),
        # Others keep theirs, special names of classes too.
        ("Fixed()", {"real", "put", "__class__"}),
        ("Abstract", {"real", "mro", "__name__"}),
        ("Color", {"RED", "mro"}),
        # Modules: what is written in them, and what their __getattr__ looks for.
        ("lazy", {"known", "later"}),
        ("linked", None),
    ],
)
def test_jedi_answers_where_names_are_all_written(dynamic, code, some):
    text = f"import lazy, linked\nfrom parts import *\nx = {code}\nx."
    found = set(dynamic.suggestions(text, len(text)))
    assert some <= found and "other" not in found if some else not found


def test_classes_of_the_text_itself_make_attributes(dynamic):
    head = "class A:\n    def __init__(self, **given):\n        {}\n    def real(self): pass\na = A(x=1)\na."
    for body, some in (("self.__dict__.update(given)", False), ("self.given = given", True)):
        text = head.format(body)
        assert ("real" in dynamic.suggestions(text, len(text))) == some


def test_an_alias_of_numpy_is_known(dynamic):
    for text in ("import numpy as np\nnp.", "try:\n    import numpy as np\nexcept ImportError:\n    np = None\nnp."):
        found = set(dynamic.suggestions(text, len(text)))
        assert {"array", "linalg", "zeros"} <= found and not {"arrays", "lin_alg"} & found


@pytest.mark.parametrize(
    ("before", "behind", "new"),
    [
        ("x.left = None\nx.", "", {"left"}),
        ("print(x.left, x . y)\nx.", "\nx.right = 1", {"left", "right"}),
        ("'x.left'  # x.right\nx.", "\n'''\nx.over\n'''", set()),
        ("y.x.left = xx.left = f().x.left = 1\nx.", "", set()),  # other objects
        ("y = x\ny.left = 1\nx.", "", set()),
        ("f(x.", ".left)", set()),
    ],
)
def test_names_that_the_text_has_are_taken(dynamic, before, behind, new):
    head = "from parts import Fixed\nx = Fixed()\n"
    known = set(dynamic.suggestions(head + "x.", len(head) + 2))
    text = head + before
    assert set(dynamic.suggestions(text + behind, len(text))) == known | new
    # An object called self is another one in every class.
    text = "class A:\n    def f(self):\n        self.left = 1\nclass B:\n    def g(self):\n        return self."
    assert "left" not in dynamic.suggestions(text, len(text))


def test_a_missing_analyser_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "jedi", None)
    with pytest.raises(UnspoolError, match=r'pip install "unspool\[monitor\]"'):
        JediAnalyser(project)


def test_a_project_is_a_directory():
    with pytest.raises(UnspoolError, match="not a directory"):
        MonitorOptions(Path("no/such/place"))


@pytest.fixture(scope="module")
def smollm2():
    return unspool.load("smollm2-135m")


@pytest.mark.model
def test_texts_of_a_real_vocabulary_are_those_of_its_tokenizer(smollm2):
    size = smollm2.language_model.vocab_size
    # Logits may be wider than the tokenizer.
    assert token_texts(smollm2.tokenizer, size + 3)[-3:] == (b"", b"", b"")
    texts = token_texts(smollm2.tokenizer, size)
    assert len(texts) == size and texts[min(smollm2.eos_token_ids)] is None
    for text in ("def f(x):\n    return x.real\n", "héllo 漢字 🙂"):
        assert b"".join(texts[token] for token in smollm2.tokenizer.encode(text)).decode() == text
    assert token_texts(smollm2.tokenizer, size) is texts


@pytest.mark.model
def test_a_real_model_writes_names_that_exist(smollm2, project):
    prompt = HEAD + "r."
    ids, model = smollm2.tokenizer.encode(prompt), smollm2.language_model
    constraint = methods.build("monitor", CONSTRAINT, smollm2.resources(), {"project": project})(ids)
    options = GenerationOptions(max_new_tokens=12)
    resources = smollm2.resources()
    request = Request(
        ids, methods.build("plain", DRAFTER, resources), methods.acceptance_rule(None, True, resources), options,
        eos=smollm2.eos_token_ids, constraint=constraint,
    )  # fmt: skip
    out = [token for event in decode(model, [request]) if isinstance(event, StepEvent) for token in event.emitted]
    assert re.match(r"(plate|dig_trench|__\w+__)\W", smollm2.tokenizer.decode(out))
    assert constraint.triggers >= 1 and not constraint.asked.failures and json.dumps(constraint.asked.ms)
