"""The bank: relations between kinds of invented entities, and ways of putting them into words.

All of it was written for this project. `relations.jsonl` has needle sentences and questions,
`bridges.jsonl` noun phrases that name an object through its subject, `backgrounds.jsonl` sentences
that state none of the relations.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BANK = Path(__file__).parent / "bank"

# Kinds of subject that an object of each kind can be in the next hop of a chain.
BRIDGES = {
    "person": ("person",),
    "place": ("town",),
    "work": ("book", "film"),
    "organisation": ("company",),
}


@dataclass(frozen=True)
class Relation:
    """One relation; {s} and {o} stand for its subject and object."""

    name: str
    subject: str
    object: str
    template: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    phrases: tuple[str, ...]
    """Noun phrases for the object: "the author of {s}"."""
    statements: tuple[str, ...]
    """The fact as a report would put it, worded unlike `sentences`."""

    @property
    def attribute(self) -> str:
        """What the object is of the subject, as the template names it: "birthplace"."""
        return self.template.removeprefix("The ").split(" of {s}")[0]


@cache
def relations() -> tuple[Relation, ...]:
    """The bank's relations, in file order."""
    bridges = {row["relation"]: row for row in _rows("bridges.jsonl")}
    return tuple(
        Relation(
            name=row["relation"],
            subject=row["subject"],
            object=row["object"],
            template=row["template"],
            sentences=tuple(row["sentences"]),
            questions=tuple(row["questions"]),
            phrases=tuple(bridges[row["relation"]]["phrases"]),
            statements=tuple(bridges[row["relation"]]["statement"]),
        )
        for row in _rows("relations.jsonl")
        if "relation" in row
    )


@cache
def backgrounds() -> dict[str, tuple[str, ...]]:
    """Sentences about a subject of each kind that state none of its relations."""
    found: dict[str, tuple[str, ...]] = {}
    for row in (*_rows("relations.jsonl"), *_rows("backgrounds.jsonl")):
        if "background" in row:
            found[row["background"]] = (*found.get(row["background"], ()), *row["sentences"])
    return found


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (_BANK / name).read_text("utf-8").splitlines()]
