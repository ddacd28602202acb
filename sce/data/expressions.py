"""Concept expression: how a problem's needles, question and answer are worded.

A style is two switches: phrasings or one template a relation, invented names or symbols. An
expression draws a `Problem` of a task in a style; where its needles go is the haystack's business
(sce.data.haystacks), and the grid of synthetic data is the product of the two.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from numpy.random import Generator

from sce.data import invented
from sce.data.problem import Needle, Problem
from sce.data.relations import BRIDGES, Relation, relations
from sce.data.summhay import citation_question

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
        self, relation: Relation, subject: str, rng: Generator, *, whole: bool = False
    ) -> str:
        """A question for the object, in lower case but for names, without a question mark.

        `whole`: a sentence, not the mere words that people type into a search box.
        """
        if self.templated:
            return f"what is the {relation.attribute} of {subject}"
        bank = relation.questions
        if whole:
            bank = tuple(q for q in bank if _WHOLE.match(q)) or bank
        return put(invented.pick(rng, bank), s=subject)

    def phrase(self, relation: Relation, subject: str, rng: Generator) -> str:
        """A noun phrase for the object."""
        if self.templated:
            return f"the {relation.attribute} of {subject}"
        return put(invented.pick(rng, relation.phrases), s=subject)

    def statement(self, fact: "Fact", rng: Generator) -> str:
        """The fact as a question quotes it."""
        bank = (fact.relation.template,) if self.templated else fact.relation.statements
        return fact.fill(invented.pick(rng, bank))


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
            asked = style.question(relation, asked, rng, whole=True)
        else:
            asked = style.phrase(relation, asked, rng)
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

    Some relations lead nowhere; then the next in the drawn order is tried. () where none fits.
    """
    if len(path) == count:
        return path
    kinds = BRIDGES[path[-1].object] if path else None
    last = len(path) == count - 1
    for index in rng.permutation(len(relations())):
        relation = relations()[int(index)]
        follows = kinds is None or relation.subject in kinds
        if follows and relation not in path and (last or relation.object in BRIDGES):
            found = _path(count, rng, (*path, relation))
            if found:
                return found
    return ()


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
    return Problem(f"what is the value of {key}", (value,), (needle,), (value,))


def symbolic_chain(count: int, rng: Generator) -> Problem:
    """A chain of keys, as many links as hops."""
    keys = [invented.symbol(rng) for _ in range(count + 1)]
    needles = tuple(Needle("entry", "", (f"{a}: {b}",)) for a, b in pairwise(keys))
    return Problem(
        question=f"Start at {keys[0]} and go from key to value {count} times. Where do you end?",
        answers=(keys[-1],),
        needles=needles,
        secrets=tuple(keys[1:]),
        meta={"hop_answers": keys[1:]},
    )


def symbolic_citation(count: int, rng: Generator) -> Problem:
    """Which lists hold an identifier."""
    name = invented.symbol(rng)
    needles = (Needle("item", "", (name,)),) * count
    return Problem(f"Which documents list {name}?", (), needles, (name,))


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
