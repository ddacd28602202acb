"""How the examples of one split are made: expression x haystack, one cell or a mixture of cells.

    question -> problem -> needles hosted -> compose with a pool's distractors -> Example
    (real)      (concept)  (context)         (context)

Example i depends on (seed, i) alone. A cell that transforms a real example, or puts other needles
into its documents, keeps its id, so that cells can be compared pair by pair.
"""

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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
from sce.errors import InputError

# Draws of a problem whose answer may not stand in the real documents that host it.
_MAX_DRAWS = 32


def make_rng(seed: int, index: int, purpose: str) -> Generator:
    """The generator of one example for one purpose."""
    return np.random.default_rng([seed, index, zlib.crc32(purpose.encode())])


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

    @property
    def concept(self) -> str:
        """Concept expression."""
        return self.cell[0]

    @property
    def context(self) -> str:
        """Context diversity."""
        return self.cell[1]

    def example(self, index: int, turn: "Turn") -> Example:
        """Example `index` of the split, context and all.

        Args:
            index: in the split.
            turn: which question of its source, and which depth, it takes.

        Raises:
            InputError: it cannot be made; the message names it.
        """
        place, base = (index, None) if self.questions is None else self.questions.at(turn.source)
        purpose = self.split
        if self.concept not in ("real", "limited") or self.context != "real":
            purpose = f"{self.split}: {self.concept} in {self.context}"
        rng = make_rng(self.seed, place, purpose)
        try:
            example, problem = self._surrounded(index, turn, base, rng)
        except InputError as error:
            name = base.id if base else f"{index} of data.{self.split}"
            raise InputError(f"example {name}: {error}") from None
        pool = self.pool or PaddingPool(haystack(self.task, "low", example.secrets))
        extra = pool.distractors(example.question, rng)
        if base is not None:  # its own documents, as they were, are no distractors of their hosts
            own = {document.text for document in base.documents}
            extra = (document for document in extra if document.text not in own)
        if problem and problem.symbols and self.context == "real":
            extra = _renamed(extra, problem)
        order = self.layout.order(turn.part, rng)
        return compose(example, extra, self.layout.limits, self.encoder, order)

    def _surrounded(
        self, index: int, turn: "Turn", base: Example | None, rng: Generator
    ) -> tuple[Example, Problem | None]:
        """The example with the documents that hold its needles, and any distractors of its own."""
        if base is not None and self.context == "real" and self.concept in ("real", "limited"):
            return base, None
        if self.written is not None and self.context == "high":
            return self.written[turn.part], None
        for _ in range(_MAX_DRAWS):
            problem = self._problem(turn, base, rng)
            documents, placed = self._hosted(problem, base, rng)
            own = [span for _, span in placed]
            rest = " ".join(
                f"{d.title} {remainder(d, [s for s in own if s.document == d.id])}"
                for d in documents[: len(problem.needles)]
            )
            # Real needles' own documents may say more than once what they say.
            if self.context != "real" or problem.symbols or not holds_answer(rest, problem.secrets):
                return self._as_example(index, base, problem, (documents, placed)), problem
        raise InputError("its documents hold every answer that was drawn")

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
            most = most and (max(1, most // 2) if self.task == "summhay" else most)
            count = count if most is None else max(1, min(count, most))
        return expressions.draw(self.task, self.concept, count, rng)

    def _hosted(
        self, problem: Problem, base: Example | None, rng: Generator
    ) -> tuple[list[Document], list[tuple[int, Span]]]:
        if self.context != "real" or base is None:
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
        hosted: tuple[list[Document], list[tuple[int, Span]]],
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


def _renamed(documents: Iterator[Document], problem: Problem) -> Iterator[Document]:
    """Documents in which the problem's entities are symbols too."""
    for document in documents:
        text = substitute(document.text, problem.symbols)
        title = substitute(document.title, problem.symbols)
        if text != document.text or title != document.title:
            document = replace(document, title=title, text=text)
        yield document


@dataclass(frozen=True)
class Turn:
    """Where an example stands among those it shares something with."""

    part: int
    """How many examples of its own part come before it."""
    source: int
    """How many examples made from the same questions come before it."""


@dataclass(frozen=True)
class Part:
    """One cell of a recipe."""

    make: Callable[[int, Turn], Example]
    source: int
    """Parts with the same number share their questions, each of which is used once."""


@dataclass(frozen=True)
class Recipe:
    """All examples of one split; one that is a mixture takes its parts in exact proportions."""

    split: str
    cell: tuple[str, str]
    parts: Sequence[Part] = field(repr=False)
    weights: tuple[float, ...]
    seed: int
    count: int

    def __len__(self) -> int:
        return self.count

    def example(self, index: int) -> Example:
        """Example `index`."""
        part, turn = self._turns[index]
        return part.make(index, turn)

    def examples(self) -> list[Example]:
        """All of them, in memory."""
        return [self.example(index) for index in range(self.count)]

    @cached_property
    def _turns(self) -> list[tuple[Part, Turn]]:
        of_part, of_source = Counter[int](), Counter[int]()
        turns = []
        for number in assign(self.weights, self.count, self.seed):
            part = self.parts[number]
            turns.append((part, Turn(of_part[number], of_source[part.source])))
            of_part[number] += 1
            of_source[part.source] += 1
        return turns


def assign(weights: Sequence[float], count: int, seed: int) -> list[int]:
    """Which part each example belongs to.

    The k-th example of a part of weight w is due at (k + u) / w, with u drawn for the part; in that
    order they are served. So the share of every part is exact wherever it comes to whole examples,
    and within two examples before, and example i's part does not depend on how many there are.
    """
    shares = np.asarray(weights) / np.sum(weights)
    offsets = np.random.default_rng([seed, len(shares)]).uniform(0.25, 0.75, len(shares))
    due = [
        (offset / share, part)
        for part, (offset, share) in enumerate(zip(offsets, shares, strict=True))
    ]
    heapq.heapify(due)
    order = []
    for _ in range(count):
        time, part = heapq.heappop(due)
        order.append(part)
        heapq.heappush(due, (time + 1 / shares[part], part))
    return order
