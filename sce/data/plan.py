"""From data options to recipes: how the examples of every split are to be made.

questions of every split -> checked: nothing shared --+-> Recipe
cells, sizes, seed -----------------------------------+
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sce.data import needle
from sce.data.cell import CellRecipe, Layout, Questions, make_rng
from sce.data.compose import Limits
from sce.data.encode import Encoder
from sce.data.example import Document, Example
from sce.data.haystacks import haystack
from sce.data.mdqa import is_limited_to
from sce.data.pools import Pool, RealPool, WrittenPool
from sce.data.questions import real_questions, sample_text, uses_real, written_questions
from sce.data.recipe import Part, Recipe
from sce.data.sources import Source
from sce.data.splits import (
    Overlap,
    check_disjoint,
    gold_documents,
    take_out_foreign,
)
from sce.data.together import Fit
from sce.data_options import SPLITS, DataOptions
from sce.errors import InputError

# Prompt tokens that a passage of an invented context has at least, to know how many may be needed.
_MIN_PASSAGE_TOKENS = 20


@dataclass(frozen=True)
class Plan:
    """What is to be built, before anything is."""

    options: DataOptions
    recipes: Mapping[str, Recipe]
    sources: Mapping[str, Source]
    """Path -> what was read from it."""
    origins: Mapping[str, str]
    """Split -> where its questions come from, in words."""
    made_of_real: Mapping[str, Sequence[bool]]
    """Split -> for each of its cells, whether it is made from real questions."""
    questions: Mapping[str, Sequence[Example]] = field(repr=False)
    """Split -> its real questions."""
    overlap: Overlap
    """What was compared between the splits (nothing is shared)."""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Split -> counts of its selection, such as questions that a limited subset kept."""


def plan_splits(
    options: DataOptions, encoder: Encoder, seed: int, names: Iterable[str] = SPLITS
) -> Plan:
    """Read the sources, deal and check the questions, and plan the named splits.

    Args:
        options: what they are made of.
        encoder: tokenizes and counts.
        seed: of the training split; the others use `options.eval_seed`.
        names: the splits to plan; whichever they are, all three are checked to share nothing.

    Raises:
        InputError: see the parts; every message names the example, file or split.
    """
    sources: dict[str, Source] = {}
    names = tuple(names)
    questions, origins = real_questions(options, sources, names)
    questions, removed = take_out_foreign(questions, drop=options.on_overlap == "drop")
    empty = [name for name in SPLITS if not questions[name]]
    if empty:
        raise InputError(f"data.on_overlap=drop leaves data.{empty[0]} without a question")
    overlap = check_disjoint(questions, removed)
    written = written_questions(options, sources)
    planner = _Planner(options, encoder, questions, written)
    recipes = {
        name: planner.recipe(name, seed if name == "train" else options.eval_seed) for name in names
    }
    made_of_real = {
        name: [uses_real(options, *cell) for cell in options.cells(name)] for name in names
    }
    return Plan(options, recipes, sources, origins, made_of_real, questions, overlap, planner.facts)


class _Planner:
    """Makes recipes; one pool serves all cells of a split that share a context."""

    def __init__(
        self,
        options: DataOptions,
        encoder: Encoder,
        questions: Mapping[str, Sequence[Example]],
        written: Sequence[Example] | None,
    ) -> None:
        self.options, self.encoder = options, encoder
        self.questions, self.written = questions, written
        self._written: Sequence[Example] | None = None
        self.facts: dict[str, dict[str, Any]] = {}
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._orders: dict[tuple[str, str], Questions] = {}

    def recipe(self, split: str, seed: int) -> Recipe:
        """The recipe of a split."""
        options = self.options
        if options.task == "needle":
            return self._needle_recipe(split, seed)
        cells = options.cells(split)
        parts = [self._cell(split, concept, context, seed) for concept, context in cells]
        weights = (
            tuple(p.weight for p in options.mix) if split == "train" and options.mix else (1.0,)
        )
        count = self._count(split, parts, weights)
        return Recipe(
            split,
            options.cell(split),
            [Part(p.examples, id(p.questions)) for p in parts],
            weights,
            seed,
            count,
            options.together(split),
        )

    def _count(self, split: str, parts: Sequence[CellRecipe], weights: Sequence[float]) -> int:
        """Examples of a split: as many as asked for or as it has, if its sources suffice."""
        wanted = getattr(self.options, f"num_{split}")
        together = self.options.together(split)
        needs: dict[int, tuple[float, int]] = {}  # source -> share of the examples, size
        for part, weight in zip(parts, weights, strict=True):
            for source in (part.questions, part.written):
                if source is not None:
                    share, _ = needs.get(id(source), (0.0, 0))
                    contexts = len(source) // together
                    needs[id(source)] = (share + weight / sum(weights), contexts)
        most = min((int(size / share) * together for share, size in needs.values()), default=None)
        if wanted is None:
            count = len(self.questions[split]) // together * together
            count = count if most is None else min(count, most)
            if not count:
                raise InputError(
                    f"data.questions_per_context={together}: data.{split} has too few questions "
                    "that fit one context; lower it"
                )
            return count
        if most is not None and wanted > most:
            if split == "train":
                raise InputError(
                    f"data.num_{split}={wanted}, but the split has {most} questions for this cell"
                )
            return most
        return wanted

    def _cell(self, split: str, concept: str, context: str, seed: int) -> CellRecipe:
        options = self.options
        limits = Limits(options.num_documents, options.context_tokens)
        if context != "real" and not limits.any:
            raise InputError("a synthetic context needs data.num_documents or data.context_tokens")
        written = self.written if split == "train" and concept == "high" else None
        questions = None
        if uses_real(options, concept, context):
            questions = self._ordered(split, concept, seed)
        return CellRecipe(
            split=split,
            task=options.task,
            cell=(concept, context),
            seed=seed,
            # Documents that we put together have no order of a file's to keep.
            layout=Layout(limits, options.shuffle_documents or context != "real", options.depths),
            encoder=self.encoder,
            pool=self._pool(split, context, seed, written),
            questions=questions,
            written=None if written is None else self._shuffled(written, seed),
            together=options.together(split),
        )

    def _shuffled(self, written: Sequence[Example], seed: int) -> Sequence[Example]:
        if self._written is None:
            order = make_rng(seed, 0, "written order").permutation(len(written)).tolist()
            together = self.options.together("train")
            if together > 1:
                order = Fit(together).grouped(written, order)
            self._written = [written[index] for index in order]
        return self._written

    def _ordered(self, split: str, concept: str, seed: int) -> Questions:
        key = (split, "limited" if concept == "limited" else "")
        if key in self._orders:
            return self._orders[key]
        examples = self.questions[split]
        order = make_rng(seed, 0, f"{split} order").permutation(len(examples)).tolist()
        if concept == "limited":
            wanted = str(self.options.limited)
            order = [n for n in order if is_limited_to(examples[n].question, wanted)]
            kept = {f"{wanted}_questions": len(order), "questions": len(examples)}
            self.facts.setdefault(split, {}).update(kept)
            if not order:
                raise InputError(
                    f"data.limited={wanted}: no question of data.{split} asks {wanted}"
                )
        self._orders[key] = Questions(examples, self._grouped(split, order))
        return self._orders[key]

    def _grouped(self, split: str, order: list[int]) -> list[int]:
        """Questions that fit together after one another, whichever of the split's cells asks."""
        options = self.options
        if options.together(split) == 1:
            return order
        in_real = [concept for concept, context in options.cells(split) if context == "real"]
        fit = Fit(
            options.together(split),
            one_haystack=options.task == "summhay" and bool(in_real),
            own_hosts=bool(set(in_real) - {"real", "limited"}),
        )
        return fit.grouped(self.questions[split], order)

    def _pool(
        self, split: str, context: str, seed: int, written: Sequence[Example] | None
    ) -> Pool | None:
        options = self.options
        if context == "low":
            return None  # padding depends on what an example may not say
        by = "llm" if written is not None and context == "high" else "grammar"
        key = (split, context, by)
        if key not in self._pools:
            if context == "real" or by == "llm":
                examples = self.questions[split] if context == "real" else written or ()
                self._pools[key] = RealPool(_pooled(examples), options.distractors)
            else:
                size = max(
                    2 * (options.num_documents or 0),
                    (options.context_tokens or 0) // _MIN_PASSAGE_TOKENS,
                )
                name = f"{split} {options.task} {context}"
                made = haystack(options.task, context)
                self._pools[key] = WrittenPool(made, seed, name, size)
        return self._pools[key]

    def _needle_recipe(self, split: str, seed: int) -> Recipe:
        options = self.options
        text = needle.read_text(options.haystack) if options.haystack else sample_text(split)
        depths = options.depths
        lengths = tuple(options.lengths) or (options.context_tokens,)
        grid = needle.Grid(self.questions[split], text, lengths, depths, self.encoder, seed, split)
        wanted = getattr(options, f"num_{split}")
        count = len(grid) if wanted is None else wanted
        if split != "train":
            count = min(count, max(len(grid), len(self.questions[split])))
        part = Part(lambda index, _: [grid.example(index)], 0)
        return Recipe(split, ("real", "real"), [part], (1.0,), seed, count)


def _pooled(examples: Sequence[Example]) -> list[Document]:
    """Documents for others' contexts: gold ones first, so that the order is that of the source."""
    golds = [document for example in examples for document in gold_documents(example)]
    return golds + [document for example in examples for document in example.documents]
