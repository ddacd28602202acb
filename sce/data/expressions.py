"""Concept expression: how a problem's needles, question and answer are worded.

A style is two switches: phrasings or one template a relation, invented names or symbols. An
expression draws a `Problem` of a task in a style; where its needles go is the haystack's business
(sce.data.haystacks), and the grid of synthetic data is the product of the two.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from numpy.random import Generator

from sce.data import invented
from sce.data.problem import Needle, Problem
from sce.data.relations import BRIDGES, Relation, relations
from sce.data.summhay import citation_question

_APPOSITION = re.compile(
    r"\b(?:book|film|ship|town|company|school|festival|river|newspaper|paper|orchestra|award|prize"
    r"|team|building|person|place|vessel|novel|picture|firm) \{s\}"
)
_WHOLE = re.compile(
    r"(?:(?:in|at|on|by|for|from|to|of|with|under) )?(?:what|which|who|whom|whose|where|when|how)\b"
)


@dataclass(frozen=True)
class Style:
    """How facts are put into words."""

    templated: bool
    """One template a relation, in place of many phrasings."""
    symbols: bool
    """Codes such as K7QX2, in place of invented names and values."""

    def entity(self, kind: str, rng: Generator) -> str:
        """A name or value of a kind."""
        return invented.symbol(rng) if self.symbols else invented.draw(kind, rng)

    def sentences(self, fact: "Fact", count: int, rng: Generator) -> list[str]:
        """Sentences that state a fact, each worded otherwise where there are phrasings."""
        if self.templated:
            return [fact.fill(fact.relation.template)] * count
        bank = fact.relation.sentences
        order = rng.permutation(len(bank))
        return [fact.fill(bank[int(order[n % len(bank)])]) for n in range(count)]

    def question(
        self,
        relation: Relation,
        subject: str,
        rng: Generator,
        *,
        whole: bool = False,
        named: bool = True,
    ) -> str:
        """A question for the object, in lower case but for names, without a question mark.

        `whole`: a sentence, not the mere words that people type into a search box. `named`: the
        subject is a name, not a phrase.
        """
        if self.templated:
            return f"what is the {relation.attribute} of {subject}"
        bank = fitting(relation.questions, named=named)
        if whole:
            bank = tuple(q for q in bank if _WHOLE.match(q)) or bank
        return put(invented.pick(rng, bank), s=subject)

    def phrase(
        self, relation: Relation, subject: str, rng: Generator, *, named: bool = True
    ) -> str:
        """A noun phrase for the object."""
        if self.templated:
            return f"the {relation.attribute} of {subject}"
        return put(invented.pick(rng, fitting(relation.phrases, named=named)), s=subject)

    def statement(self, fact: "Fact", rng: Generator) -> str:
        """The fact as a question quotes it."""
        bank = (fact.relation.template,) if self.templated else fact.relation.statements
        return fact.fill(invented.pick(rng, bank))


def fitting(patterns: Sequence[str], *, named: bool) -> tuple[str, ...]:
    """Patterns that a subject fits: "the book {s}" and "{s}'s" want a name, not a phrase."""
    if named:
        return tuple(patterns)
    phrases = (p for p in patterns if "{s}'s" not in p and not _APPOSITION.search(p))
    return tuple(phrases) or tuple(patterns)


def put(pattern: str, **slots: str) -> str:
    """The pattern with its slots filled; a name with an article of its own brings no second one."""
    for slot, value in slots.items():
        if value.startswith("the "):
            pattern = re.sub(rf"\b[Tt]he \{{{slot}\}}", f"{{{slot}}}", pattern)
        pattern = pattern.replace(f"{{{slot}}}", value)
    return pattern


STYLES = {
    "high": Style(templated=False, symbols=False),
    "low_template": Style(templated=True, symbols=False),
    "low_entity": Style(templated=False, symbols=True),
    "low": Style(templated=True, symbols=True),
}


@dataclass(frozen=True)
class Fact:
    """`object` is what `relation` says of `subject`."""

    relation: Relation
    subject: str
    object: str

    @property
    def answer(self) -> str:
        """The object without an article, since a sentence may open with it capitalised."""
        return self.object.removeprefix("the ")

    @property
    def title(self) -> str:
        """The subject as a document's title."""
        return invented.capitalize(self.subject.removeprefix("the "))

    def fill(self, pattern: str) -> str:
        """The pattern with subject and object in place."""
        return invented.capitalize(put(pattern, s=self.subject, o=self.object))


def _fact(relation: Relation, style: Style, rng: Generator, subject: str | None = None) -> Fact:
    subject = subject or style.entity(relation.subject, rng)
    return Fact(relation, subject, style.entity(relation.object, rng))


def single(style: Style, count: int, rng: Generator) -> Problem:
    """MDQA: one fact and the question for its object, in lower case like Natural Questions."""
    del count  # always one needle
    fact = _fact(relations()[int(rng.integers(len(relations())))], style, rng)
    (sentence,) = style.sentences(fact, 1, rng)
    subject = fact.subject if style.symbols else fact.subject.lower()
    return Problem(
        question=style.question(fact.relation, subject, rng),
        answers=(fact.answer,),
        needles=(Needle(fact.relation.subject, fact.title, (sentence,)),),
        secrets=(fact.answer,),
        meta={"relation": fact.relation.name},
    )


def chain(style: Style, count: int, rng: Generator) -> Problem:
    """MuSiQue: `count` facts, each about the last one's object; the question names none of them."""
    facts: list[Fact] = []
    asked = ""
    for hop, relation in enumerate(_path(count, rng)):
        subject = facts[-1].object if facts else None
        fact = _fact(relation, style, rng, subject)
        asked = asked or fact.subject
        last = hop == count - 1
        if last:
            asked = style.question(relation, asked, rng, whole=True, named=hop == 0)
        else:
            asked = style.phrase(relation, asked, rng, named=hop == 0)
        facts.append(fact)
    needles = tuple(
        Needle(f.relation.subject, f.title, tuple(style.sentences(f, 1, rng))) for f in facts
    )
    answers = tuple(fact.answer for fact in facts)
    return Problem(
        question=f"{invented.capitalize(asked)}?",
        answers=answers[-1:],
        needles=needles,
        secrets=answers,
        meta={"relations": [f.relation.name for f in facts], "hop_answers": list(answers)},
    )


def _path(count: int, rng: Generator, path: tuple[Relation, ...] = ()) -> tuple[Relation, ...]:
    """Different relations, each but the first about an object of the one before.

    The kind that a hop is about is drawn before its relation, so that all kinds are asked about
    alike. Some relations lead nowhere; then the next is tried. () where none fits.
    """
    if len(path) == count:
        return path
    kinds = BRIDGES[path[-1].object] if path else None
    last = len(path) == count - 1
    order = sorted(rng.permutation(len(relations())).tolist(), key=_by_drawn_kind(rng, last=last))
    for index in order:
        relation = relations()[index]
        follows = kinds is None or relation.subject in kinds
        if follows and relation not in path and (last or relation.object in BRIDGES):
            found = _path(count, rng, (*path, relation))
            if found:
                return found
    return ()


def _by_drawn_kind(rng: Generator, *, last: bool) -> Callable[[int], int]:
    """Before the last hop, relations in a drawn order of the kinds that they lead to."""
    kinds = list(BRIDGES)
    order = {kinds[int(n)]: place for place, n in enumerate(rng.permutation(len(kinds)))}
    return lambda index: 0 if last else order.get(relations()[index].object, len(kinds))


def citation(style: Style, count: int, rng: Generator) -> Problem:
    """SummHay: one fact stated in `count` documents; others state other facts of its subject."""
    fact = _fact(relations()[int(rng.integers(len(relations())))], style, rng)
    others = [r for r in relations() if r.subject == fact.relation.subject and r != fact.relation]
    decoys = [_fact(relation, style, rng, fact.subject) for relation in others]
    kind = fact.relation.subject
    return Problem(
        question=citation_question(style.statement(fact, rng)),
        answers=(),
        needles=tuple(Needle(kind, "", (s,)) for s in style.sentences(fact, count, rng)),
        secrets=(fact.subject.removeprefix("the "),),
        decoys=tuple(Needle(kind, "", (style.sentences(d, 1, rng)[0],)) for d in decoys),
        meta={"relation": fact.relation.name},
    )


def entry(rng: Generator) -> tuple[str, str]:
    """A key and its value."""
    return invented.symbol(rng), invented.symbol(rng)


def symbolic_single(count: int, rng: Generator) -> Problem:
    """A key and its value: nothing but the look-up is left of the task."""
    del count
    key, value = entry(rng)
    needle = Needle("entry", "", (f"{key}: {value}",))
    return Problem(f"what is the value of {key}", (value,), (needle,), (value, key))


def symbolic_chain(count: int, rng: Generator) -> Problem:
    """A chain of keys, as many links as hops."""
    keys = [invented.symbol(rng) for _ in range(count + 1)]
    needles = tuple(Needle("entry", "", (f"{a}: {b}",)) for a, b in pairwise(keys))
    return Problem(
        question=f"Start at {keys[0]} and go from key to value {count} times. Where do you end?",
        answers=(keys[-1],),
        needles=needles,
        secrets=tuple(keys[1:]),
        # Chains that start elsewhere, or the only keys to come twice would be the right ones.
        decoys=tuple(
            Needle("entry", "", (f"{a}: {b}",))
            for _ in range(_NUM_DECOY_CHAINS)
            for a, b in pairwise([invented.symbol(rng) for _ in range(count + 1)])
        ),
        meta={"hop_answers": keys[1:], "avoid": keys[:1]},
    )


def symbolic_citation(count: int, rng: Generator) -> Problem:
    """Which lists hold an identifier."""
    name = invented.symbol(rng)
    needles = (Needle("item", "", (name,)),) * count
    # Other identifiers that stand in several lists, or the only such one would be the right one.
    others = [invented.symbol(rng) for _ in range(_NUM_DECOY_CHAINS)]
    decoys = tuple(Needle("item", "", (other,)) for other in others for _ in range(2))
    return Problem(f"Which documents list {name}?", (), needles, (name,), decoys)


_NUM_DECOY_CHAINS = 2

_DRAW = {"mdqa": single, "musique": chain, "summhay": citation}
_SYMBOLIC: dict[str, Callable[[int, Generator], Problem]] = {
    "mdqa": symbolic_single,
    "musique": symbolic_chain,
    "summhay": symbolic_citation,
}


def draw(task: str, concept: str, count: int, rng: Generator) -> Problem:
    """A problem of a task with `count` needles, in one of the invented concepts."""
    if concept == "symbolic":
        return _SYMBOLIC[task](count, rng)
    return _DRAW[task](STYLES[concept], count, rng)


def num_needles(task: str, rng: Generator) -> int:
    """Needles of a problem that is modelled on no real one: hops, or documents to cite.

    Hops in about the shares of MuSiQue's published development set; 3 to 6 documents to cite.
    """
    if task == "musique":
        return 2 + int(rng.choice(3, p=[0.52, 0.31, 0.17]))
    return int(rng.integers(3, 7)) if task == "summhay" else 1
