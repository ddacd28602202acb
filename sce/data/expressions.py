"""Concept expression: how a needle, its question and its answer are worded.

An expression maps a generator to a `Needle`. Where it goes is the haystack's business
(sce.data.haystacks): the grid of synthetic data is the product of the two.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from numpy.random import Generator

from sce.data import invented

_BANK = Path(__file__).parent / "bank" / "relations.jsonl"


@dataclass(frozen=True)
class Relation:
    """One relation between kinds of invented entities, and ways of putting it into words."""

    name: str
    subject: str
    object: str
    template: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Needle:
    """One fact: `sentence` states that `answer` is what `question` asks for."""

    relation: str
    kind: str
    """Kind of the subject, so that a haystack can surround it with sentences of the same kind."""
    subject: str
    sentence: str
    question: str
    answer: str


@cache
def relations() -> tuple[Relation, ...]:
    """The bank's relations, in file order."""
    return tuple(
        Relation(
            row["relation"],
            row["subject"],
            row["object"],
            row["template"],
            tuple(row["sentences"]),
            tuple(row["questions"]),
        )
        for row in _bank_rows()
        if "relation" in row
    )


@cache
def backgrounds() -> dict[str, tuple[str, ...]]:
    """Sentences about a subject of each kind that state none of its relations."""
    return {
        row["background"]: tuple(row["sentences"]) for row in _bank_rows() if "background" in row
    }


def _bank_rows() -> list[dict]:
    return [json.loads(line) for line in _BANK.read_text(encoding="utf-8").splitlines()]


def capitalize(sentence: str) -> str:
    """The sentence with an upper-case first letter."""
    return sentence[0].upper() + sentence[1:]


def _relation(rng: Generator) -> Relation:
    return relations()[int(rng.integers(len(relations())))]


def high(rng: Generator) -> Needle:
    """Natural prose, one of many phrasings, about invented entities."""
    relation = _relation(rng)
    subject, answer = invented.draw(relation.subject, rng), invented.draw(relation.object, rng)
    sentence = invented.pick(rng, relation.sentences).replace("{s}", subject).replace("{o}", answer)
    question = invented.pick(rng, relation.questions).replace("{s}", subject.lower())
    # An organisation is asked for without its article, as a sentence may open with it capitalized.
    answer = answer.removeprefix("the ")
    return Needle(relation.name, relation.subject, subject, capitalize(sentence), question, answer)


def low(rng: Generator) -> Needle:
    """One fixed template a relation, its entities replaced by symbols."""
    relation = _relation(rng)
    subject, answer = invented.symbol(rng), invented.symbol(rng)
    sentence = relation.template.replace("{s}", subject).replace("{o}", answer)
    attribute = relation.template.removeprefix("The ").split(" of {s}")[0]
    question = f"what is the {attribute} of {subject}"
    return Needle(relation.name, relation.subject, subject, sentence, question, answer)


def symbolic(rng: Generator) -> Needle:
    """A key and its value: nothing but the look-up is left of the task."""
    key, value = invented.symbol(rng), invented.symbol(rng)
    return Needle("entry", "entry", key, f"{key}: {value}", f"what is the value of {key}", value)


EXPRESSIONS: dict[str, Callable[[Generator], Needle]] = {
    "high": high,
    "low": low,
    "symbolic": symbolic,
}
