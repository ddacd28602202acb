"""Invented people, places, organisations and works, and closed lists of everyday values.

Names are put together from syllables, so that nothing about them can be known from pretraining.
Every draw takes its generator; nothing here keeps state.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from numpy.random import Generator

_VALUES = Path(__file__).parent / "bank" / "values.json"

_ONSETS = "b br c cr d dr f fl g gr h j k kl l m n p pr qu r s sk st t th tr v w z".split()
_NUCLEI = "a e i o u ae ea ei ia io ou".split()
_CODAS = "l ld lm m n nd nt r rd rn rth s sk ss st th x".split()
_GIVEN_ENDS = "a an ara el en essa ia iel in ine is on or us wen yn".split()
_PLACE_ENDS = (
    "bury by cliff combe dal fell ford garth ham holt mere moor stad ton wick worth".split()
)

_ADJECTIVES = (
    "Amber Borrowed Broken Copper Crooked Distant Drowned Empty Faithful Folded Hollow Idle Last"
    " Lesser Nameless Paper Patient Quiet Salted Second Silent Sleeping Tin Unlit Winter Wandering"
).split()
_NOUNS = (
    "Almanac Anchor Beekeeper Bridge Calendar Candle Cartographer Ferry Garden Harvest Ladder"
    " Lantern Ledger Lighthouse Mirror Orchard Passenger Quarry River Sparrow Staircase Telegraph"
    " Tide Weaver"
).split()


@cache
def common() -> dict[str, tuple[str, ...]]:
    """Common nouns of each kind that is no name: materials, animals, dishes and so on."""
    values = json.loads(_VALUES.read_text(encoding="utf-8"))
    return {kind: tuple(words) for kind, words in values.items()}


def capitalize(sentence: str) -> str:
    """The sentence with an upper-case first letter."""
    return sentence[0].upper() + sentence[1:]


def pick(rng: Generator, options: Sequence[str]) -> str:
    """One of `options`, uniformly."""
    return options[int(rng.integers(len(options)))]


def stem(rng: Generator) -> str:
    """A capitalised invented word of two syllables, such as Velmor."""
    word = pick(rng, _ONSETS) + pick(rng, _NUCLEI) + pick(rng, _CODAS)
    return (word + pick(rng, _NUCLEI[:5]) + pick(rng, _CODAS[:8])).capitalize()


def person(rng: Generator) -> str:
    """Given name and surname."""
    given = (
        pick(rng, _ONSETS) + pick(rng, _NUCLEI[:5]) + pick(rng, _CODAS[:6]) + pick(rng, _GIVEN_ENDS)
    )
    return f"{given.capitalize()} {stem(rng)}"


def place(rng: Generator) -> str:
    """A town."""
    head = pick(rng, _ONSETS) + pick(rng, _NUCLEI) + pick(rng, _CODAS[:10])
    return head.capitalize() + pick(rng, _PLACE_ENDS)


def work(rng: Generator) -> str:
    """The title of a book, film or piece."""
    if rng.random() < 0.5:
        return f"The {pick(rng, _ADJECTIVES)} {pick(rng, _NOUNS)} of {place(rng)}"
    return f"{stem(rng)} and the {pick(rng, _ADJECTIVES)} {pick(rng, _NOUNS)}"


def _named(*ends: str, article: bool = False) -> Callable[[Generator], str]:
    def draw(rng: Generator) -> str:
        name = place(rng) if rng.random() < 0.5 else stem(rng)
        return f"{'the ' if article else ''}{name} {pick(rng, ends)}"

    return draw


def number(rng: Generator) -> str:
    """A four-digit count with a thousands separator, such as 4,180."""
    return f"{int(rng.integers(1001, 9999)):,}"


def year(rng: Generator) -> str:
    """A year from 1604 to 1987."""
    return str(int(rng.integers(1604, 1988)))


def recent_year(rng: Generator) -> str:
    """A year from 1921 to 1994, for sentences with radios, trams and telephones in them."""
    return str(int(rng.integers(1921, 1995)))


_DRAW: dict[str, Callable[[Generator], str]] = {
    "person": person,
    "place": place,
    "town": place,
    "work": work,
    "book": work,
    "film": work,
    "number": number,
    "year": year,
    "organisation": _named(
        "Trust", "Guild", "Society", "Institute", "Union", "Works", article=True
    ),
    "building": _named("Hall", "Tower", "Chapel", "House", "Arcade", "Granary"),
    "company": _named("Foundry", "Brothers", "Textiles", "Shipping", "Instruments", "Mills"),
    "ship": lambda rng: f"the {pick(rng, _ADJECTIVES)} {stem(rng)}",
    "school": _named("College", "Academy", "Grammar School", "Seminary", "Lyceum"),
    "festival": _named("Lantern Festival", "Harvest Fair", "Song Week", "Regatta", article=True),
    "river": lambda rng: f"the {stem(rng)}",
    "newspaper": _named("Courier", "Gazette", "Herald", "Observer", "Messenger", article=True),
    "orchestra": _named("Philharmonic", "Chamber Orchestra", "Sinfonietta", article=True),
    "award": _named("Prize", "Medal", "Award", article=True),
    "team": _named("Rovers", "Wanderers", "Athletic", "Harriers"),
}


def draw(kind: str, rng: Generator) -> str:
    """An invented entity, or a value, of a kind named in the bank of relations."""
    if kind in common():
        return pick(rng, common()[kind])
    return _DRAW[kind](rng)


def symbol(rng: Generator, length: int = 5) -> str:
    """An upper-case code with letters and digits in it, such as K7QX2."""
    letters, digits = "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789"
    code = "".join(pick(rng, letters + digits) for _ in range(length - 2))
    return pick(rng, letters) + code + pick(rng, digits)
