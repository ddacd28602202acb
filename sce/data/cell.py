"""One cell of the grid: from a question to an example, and several that share a context.

    question -> problem -> needles hosted -> compose with a pool's distractors -> Example
    (real)      (concept)  (context)         (context)

A cell that transforms a real example, or puts other needles into its documents, keeps its id, so
that cells can be compared pair by pair.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from sce.data import expressions
from sce.data.compose import Limits, Order, compose
from sce.data.encode import Encoder
from sce.data.entities import substitute, symbolised
from sce.data.example import Document, Example, Span
from sce.data.haystacks import haystack, host_in_invented, host_in_real, remainder
from sce.data.pools import PaddingPool, Pool
from sce.data.problem import Problem, from_example
from sce.data.text import holds_answer
from sce.data.together import Member, clash, joined, parted
from sce.errors import InputError

Hosted = tuple[list[Document], list[tuple[int, Span]]]
"""Documents that hold needles, and (place in the evidence, span) of every sentence."""
# Draws of a problem whose answer may not stand in the real documents that host it.
_MAX_DRAWS = 32


def make_rng(seed: int, index: int, purpose: str) -> Generator:
    """The generator of one example for one purpose."""
    return np.random.default_rng([seed, index, zlib.crc32(purpose.encode())])


@dataclass(frozen=True)
class Turn:
    """Where an example stands among those it shares something with."""

    part: int
    """How many examples of its own part come before it."""
    source: int
    """How many examples made from the same questions come before it."""

    def after(self, count: int) -> "Turn":
        """That of the example so many later, of the same part."""
        return Turn(self.part + count, self.source + count)


@dataclass(frozen=True)
class Layout:
    """Size and order of a split's contexts."""

    limits: Limits
    shuffle: bool = True
    depths: tuple[float, ...] | None = None

    def order(self, turn: int, rng: Generator) -> Order:
        """How the documents of the turn-th example of a cell are ordered."""
        depth = None if self.depths is None else self.depths[turn % len(self.depths)]
        return Order(rng if self.shuffle else None, depth)


@dataclass(frozen=True)
class Questions:
    """Real questions that a cell is made from, in the order of the examples."""

    examples: Sequence[Example]
    order: Sequence[int]

    def __len__(self) -> int:
        return len(self.order)

    def at(self, turn: int) -> tuple[int, Example]:
        """Place in the source, and example, of the turn-th one."""
        place = self.order[turn]
        return place, self.examples[place]


@dataclass(frozen=True)
class _Asked:
    """One example to be made."""

    index: int
    turn: Turn
    base: Example | None
    """The real question that it is made from."""
    rng: Generator


@dataclass(frozen=True)
class _Member(Member):
    """One of the examples of a context, and the problem that it was made from."""

    problem: Problem | None = None


@dataclass(frozen=True)
class CellRecipe:
    """Examples of one cell of the grid for one split."""

    split: str
    task: str
    cell: tuple[str, str]
    seed: int
    layout: Layout
    encoder: Encoder = field(repr=False)
    pool: Pool | None = field(repr=False)
    questions: Questions | None = field(default=None, repr=False)
    """Real questions, where the cell is made from them."""
    written: Sequence[Example] | None = field(default=None, repr=False)
    """Examples written by a language model, which stand for the concept high."""
    together: int = 1
    """Examples that share one context; of questions and written ones, every so many after one
    another fit together."""

    @property
    def concept(self) -> str:
        """Concept expression."""
        return self.cell[0]

    @property
    def context(self) -> str:
        """Context diversity."""
        return self.cell[1]

    def examples(self, index: int, turn: Turn) -> list[Example]:
        """The `together` examples that share a context, the first of them example `index`.

        Args:
            index: in the split.
            turn: which question of its source, and which depth, the first takes.

        Raises:
            InputError: one cannot be made; the message names it.
        """
        asked = [self._asked(index + n, turn.after(n)) for n in range(self.together)]
        members = self._apart(asked)
        whole, own = members[0].example, [members[0].example]
        if self.together > 1:
            whole, own = joined(members, self.encoder)
        pool = self.pool or PaddingPool(haystack(self.task, "low", whole.secrets))
        lead = asked[0].rng
        extra = pool.distractors(" ".join(m.example.question for m in members), lead)
        # Its own documents, as they were, are no distractors of their hosts.
        seen = {document.text for a in asked if a.base for document in a.base.documents}
        extra = (document for document in extra if document.text not in seen)
        for member in members:
            if member.problem and member.problem.symbols and self.context == "real":
                extra = _renamed(extra, member.problem)
        order = self.layout.order(turn.part // self.together, lead)
        composed = compose(whole, extra, self.layout.limits, self.encoder, order)
        return parted(composed, own) if self.together > 1 else [composed]

    def _asked(self, index: int, turn: Turn) -> "_Asked":
        place, base = (index, None) if self.questions is None else self.questions.at(turn.source)
        purpose = self.split
        if self.concept not in ("real", "limited") or self.context != "real":
            purpose = f"{self.split}: {self.concept} in {self.context}"
        return _Asked(index, turn, base, make_rng(self.seed, place, purpose))

    def _apart(self, asked: Sequence["_Asked"]) -> list["_Member"]:
        """Members that do not clash: those that do are drawn anew, with what to avoid."""
        members = [self._surrounded(one, ()) for one in asked]
        if len(members) == 1:
            return members
        for _ in range(_MAX_DRAWS):
            pair = clash(members)
            if pair is None:
                return members
            for n in pair:
                others = [m.example.secrets for m in members if m is not members[n]]
                members[n] = self._surrounded(asked[n], tuple(s for ss in others for s in ss))
        raise InputError(
            f"example {members[0].example.id}: {len(members)} questions could not be drawn whose "
            "documents hold none of each other's answers; lower data.questions_per_context"
        )

    def _surrounded(self, asked: "_Asked", avoid: tuple[str, ...]) -> "_Member":
        """The example with the documents that hold its needles, and any distractors of its own."""
        base, rng = asked.base, asked.rng
        texts = {d.id: d.text for d in base.documents} if base and self.context == "real" else {}
        if base is not None and self.context == "real" and self.concept in ("real", "limited"):
            return _Member(base, texts)
        if self.written is not None and self.context == "high":
            return _Member(self.written[asked.turn.part])
        try:
            for _ in range(_MAX_DRAWS):
                problem = self._problem(asked.turn, base, rng)
                hosted = self._hosted(problem, base, avoid, rng)
                # Real needles' own documents may say more than once what they say.
                if (
                    self.context != "real"
                    or problem.symbols
                    or not holds_answer(_rest(problem, hosted), problem.secrets)
                ):
                    example = self._as_example(asked.index, base, problem, hosted)
                    return _Member(example, texts, problem)
            raise InputError("its documents hold every answer that was drawn")
        except InputError as error:
            name = base.id if base else f"{asked.index} of data.{self.split}"
            raise InputError(f"example {name}: {error}") from None

    def _problem(self, turn: "Turn", base: Example | None, rng: Generator) -> Problem:
        if base is not None and self.concept == "real":
            return from_example(base)
        if base is not None and self.concept == "low_entity":
            return symbolised(from_example(base), rng)
        if self.written is not None:
            return from_example(self.written[turn.part])
        if base is not None:
            count = len(base.gold_ids)
        else:
            count = expressions.num_needles(self.task, rng)
            most = self.layout.limits.num_documents
            # Not all documents are to be cited where some can say something else.
            most = most and max(1, most // self.together)
            most = most and (max(1, most // 2) if self.task == "summhay" else most)
            count = count if most is None else max(1, min(count, most))
        return expressions.draw(self.task, self.concept, count, rng)

    def _hosted(
        self, problem: Problem, base: Example | None, avoid: tuple[str, ...], rng: Generator
    ) -> Hosted:
        """The problem's needles in documents; invented ones say nothing of what to avoid."""
        if self.context != "real" or base is None:
            problem = replace(problem, secrets=(*problem.secrets, *avoid))
            return host_in_invented(
                problem, haystack(self.task, self.context, problem.secrets), rng
            )
        first = {s.document: n for n, s in reversed(list(enumerate(base.evidence)))}
        golds = sorted(
            (d for d in base.documents if d.id in first), key=lambda document: first[document.id]
        )
        spans = [[s for s in base.evidence if s.document == d.id] for d in golds]
        symbols = bool(problem.symbols)
        documents, placed = host_in_real(
            problem, list(zip(golds, spans, strict=True)), symbols=symbols
        )
        others = [d for d in base.documents if d.id not in first]
        return documents + (list(_renamed(iter(others), problem)) if symbols else others), placed

    def _as_example(
        self,
        index: int,
        base: Example | None,
        problem: Problem,
        hosted: Hosted,
    ) -> Example:
        documents, placed = hosted
        evidence = tuple(span for _, span in sorted(placed, key=lambda pair: pair[0]))
        cited = tuple(dict.fromkeys(span.document for span in evidence))
        meta = dict(problem.meta)
        more = set(problem.secrets) - set(problem.answers) - set(meta.get("hop_answers", ()))
        if more and not problem.symbols:
            meta["avoid"] = sorted(more | set(meta.get("avoid", ())))
        name = f"{self.split}-{self.concept}-{self.context}-{self.seed}-{index}"
        example = Example(
            id=base.id if base is not None else name,
            task=self.task,
            documents=tuple(documents),
            question=problem.question,
            answers=problem.answers or cited,
            evidence=evidence,
            meta=meta,
        )
        example.check()
        return example


def _rest(problem: Problem, hosted: Hosted) -> str:
    """What the documents that hold a problem's needles say beside them."""
    documents, placed = hosted
    own = [span for _, span in placed]
    return " ".join(
        f"{d.title} {remainder(d, [s for s in own if s.document == d.id])}"
        for d in documents[: len(problem.needles)]
    )


def _renamed(documents: Iterator[Document], problem: Problem) -> Iterator[Document]:
    """Documents in which the problem's entities are symbols too."""
    for document in documents:
        text = substitute(document.text, problem.symbols)
        title = substitute(document.title, problem.symbols)
        if text != document.text or title != document.title:
            document = replace(document, title=title, text=text)
        yield document
