"""Real entities replaced by symbols, throughout an example (concept=low_entity).

Entities are found by rule, not by a model: the answers, titles of the evidence's documents, runs of
capitalised words, and numbers. What a rule misses stays as it is; what stands for an entity is the
same symbol wherever the entity stands, whatever its case (questions are often in lower case).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from numpy.random import Generator

from sce.data import invented
from sce.data.problem import Needle, Problem
from sce.data.text import FUNCTION_WORDS
from sce.errors import InputError

_CAPITALISED = r"(?:[^\W\d_a-z][\w\u2019'.-]*\w|[^\W\d_a-z])"
_LINK = r"(?:(?:of|of the|de|de la|la|le|van|von|del|di)\s+)?"
_RUN = re.compile(rf"{_CAPITALISED}(?:\s+{_LINK}{_CAPITALISED})*")
# What opens a sentence with a capital and is no part of a name.
_NO_NAMES = FUNCTION_WORDS | frozenset(
    "after all although among an another any around because before both but despite during each"
    " even every finally he her here his however i if instead it's its later like many most no not"
    " now once only other others our over several she since so some still such then there these"
    " they this those though through throughout today together under unlike until we while"
    " within without yet you your".split()
)
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def symbols_for(problem: Problem, rng: Generator) -> dict[str, str]:
    """A symbol for every entity of a problem's needles; aliases of the answer share one."""
    symbols: dict[str, str] = {}

    def name(entities: Iterable[str]) -> None:
        new = [e for e in entities if e.lower() not in {known.lower() for known in symbols}]
        if new:
            symbols.update(dict.fromkeys(new, _whole_name(new[0], symbols) or invented.symbol(rng)))

    name(problem.answers)
    for answer in problem.meta.get("hop_answers", ()):
        name([answer])
    for needle in problem.needles:
        name([needle.title] if needle.title else [])
        for sentence in needle.sentences:
            # A symbol breaks a run, so that no entity holds another's symbol.
            masked = substitute(sentence, dict.fromkeys(symbols, "·"))
            for entity in entities_of(masked):
                name([entity])
    return symbols


def _whole_name(entity: str, symbols: Mapping[str, str]) -> str | None:
    """The symbol of the one longer name that ends in these words: a surname alone is the person."""
    longer = {s for name, s in symbols.items() if name.lower().endswith(f" {entity.lower()}")}
    return longer.pop() if len(longer) == 1 and not entity[0].isdigit() else None


def entities_of(sentence: str) -> list[str]:
    """Runs of capitalised words and numbers, in order.

    A word that opens the sentence counts only as part of a longer run, since every sentence opens
    with a capital; a leading article or preposition is no part of a name.
    """
    found = []
    for match in _RUN.finditer(sentence):
        words = match[0].split()
        start = match.start()
        while words and words[0].lower() in _NO_NAMES:
            start += len(words[0]) + 1
            words = words[1:]
        name = re.sub(r"['\u2019]s?$", "", " ".join(words))
        opens = not sentence[: match.start()].strip(" \"'\u201c\u2018(")
        if opens and start == match.start():
            if len(words) == 1:
                continue
            if words[1].islower():  # "Trains of the Rhaetian Railway"
                name = " ".join(words).split(" ", 2)[2].removeprefix("the ")
        if len(name) > 1:
            found.append(name)
    return found + [m[0] for m in _NUMBER.finditer(_RUN.sub(" ", sentence))]


def substitute(text: str, symbols: Mapping[str, str]) -> str:
    """The text with every entity replaced, longest first within answers and within the rest."""
    if not symbols:
        return text
    lowered = {entity.lower(): symbol for entity, symbol in symbols.items()}
    # In two passes: an answer inside a longer name must still become the answer's symbol.
    by_symbol = list(dict.fromkeys(symbols.values()))
    first = [e for e in symbols if symbols[e] == by_symbol[0]]
    rest = [e for e in symbols if symbols[e] != by_symbol[0]]
    for group in (first, rest):
        longest = sorted(group, key=len, reverse=True)
        if longest:
            pattern = "|".join(_pattern(entity) for entity in longest)
            text = re.sub(pattern, lambda m: lowered.get(m[0].lower(), m[0]), text, flags=re.I)
    return text


def _pattern(entity: str) -> str:
    left = r"(?<!\w)" if entity[0].isalnum() else ""
    right = r"(?!\w)" if entity[-1].isalnum() else ""
    return left + re.escape(entity) + right


def symbolised(problem: Problem, rng: Generator) -> Problem:
    """The problem with its entities replaced; its `symbols` say how documents are to follow.

    Raises:
        InputError: an answer is only part of a word, so that no symbol can stand for it.
    """
    symbols = symbols_for(problem, rng)

    def put(text: str) -> str:
        return substitute(text, symbols)

    def needle(old: Needle) -> Needle:
        return replace(old, title=put(old.title), sentences=tuple(put(s) for s in old.sentences))

    needles = tuple(needle(old) for old in problem.needles)
    answers = tuple(dict.fromkeys(symbols[answer] for answer in problem.answers))
    sentences = [sentence for new in needles for sentence in new.sentences]
    if answers and not any(answer in s for answer in answers for s in sentences):
        raise InputError(f"no symbol can stand for the answer {problem.answers[0]!r}")
    hops = [put(answer) for answer in problem.meta.get("hop_answers", ())]
    meta = {**problem.meta, **({"hop_answers": hops} if hops else {})}
    return replace(
        problem,
        question=put(problem.question),
        answers=answers,
        needles=needles,
        secrets=tuple(dict.fromkeys(put(secret) for secret in problem.secrets)),
        symbols=symbols,
        meta=meta,
    )
