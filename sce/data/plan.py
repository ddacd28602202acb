"""From data options to recipes: which questions each split has, and how its examples are made.

sources -> questions --+-> dealt to splits by document -> checked: nothing shared -> Recipe
|
cell, sizes, seed -----+
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sce.data import needle
from sce.data.compose import Limits
from sce.data.encode import Encoder
from sce.data.example import Document, Example
from sce.data.haystacks import haystack
from sce.data.mdqa import is_limited_to
from sce.data.pools import Pool, RealPool, WrittenPool
from sce.data.recipe import CellRecipe, Layout, Questions, Recipe, make_rng
from sce.data.sources import Source, read_source
from sce.data.splits import (
    Overlap,
    check_disjoint,
    gold_documents,
    split_by_document,
    take_out_foreign,
)
from sce.data_options import SPLITS, DataOptions
from sce.errors import InputError

SAMPLE = Path(__file__).parent / "sample"
# How one source is shared out among the splits that name none of their own.
_SHARES = {"train": 0.6, "val": 0.2, "reference": 0.2}
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
    questions, origins = _questions(options, sources)
    questions, removed = take_out_foreign(questions, drop=options.on_overlap == "drop")
    empty = [name for name in SPLITS if not questions[name]]
    if empty:
        raise InputError(f"data.on_overlap=drop leaves data.{empty[0]} without a question")
    overlap = check_disjoint(questions, removed)
    written = _written(options, sources)
    planner = _Planner(options, encoder, questions, written)
    recipes = {
        name: planner.recipe(name, seed if name == "train" else options.eval_seed) for name in names
    }
    return Plan(options, recipes, sources, origins, questions, overlap, planner.facts)


def _read(path: str, options: DataOptions, sources: dict[str, Source]) -> list[Example]:
    if path not in sources:
        sources[path] = read_source(
            path,
            options.format,
            skip_bad_rows=options.on_bad_row == "skip",
            task=options.task,
        )
    return sources[path].examples


def _sample(task: str, split: str) -> list[Example]:
    """The embedded questions of a split."""
    folder = SAMPLE if task == "mdqa" else SAMPLE / task
    kind, row_format = {"mdqa": ("jsonl", "nq"), "summhay": ("json", "summhay")}.get(
        task, ("jsonl", task)
    )
    return read_source(str(folder / f"{split}.{kind}"), row_format).examples


def _needs_questions(options: DataOptions, split: str) -> bool:
    """Whether a split's own cells are made from real questions."""
    return any(_uses_real(options, *cell) for cell in options.cells(split))


def _uses_real(options: DataOptions, concept: str, context: str) -> bool:
    base = options.entity_base or ("real" if context == "real" else "high")
    made_of_real = concept in ("real", "limited") or context == "real"
    return made_of_real or (concept == "low_entity" and base == "real")


def _questions(
    options: DataOptions, sources: dict[str, Source]
) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """The real questions of every split: each from its own path, or dealt out of another's."""
    paths = {name: getattr(options, name).path for name in SPLITS}
    sample: dict[str, str] = dict.fromkeys(SPLITS, "the sample")
    if not any(paths.values()):
        return {name: _sample(options.task, name) for name in SPLITS}, sample
    owners = [name for name in SPLITS if paths[name]]
    read = {name: _read(str(paths[name]), options, sources) for name in owners}
    origins = {name: str(paths[name]) for name in owners}
    if "train" not in owners:
        if _needs_questions(options, "train"):
            raise InputError(
                "this cell is made from real questions: name data.train.path to train on"
            )
        # Only counted: a synthetic split is as large as the sample's.
        read["train"], origins["train"] = _sample(options.task, "train"), "the sample"
    missing = [name for name in SPLITS if name not in read]
    if not missing:
        return read, origins
    owner = owners[0]
    shares = {name: _SHARES[name] for name in (owner, *missing)}
    dealt = split_by_document(read[owner], shares, options.eval_seed)
    empty = [name for name, examples in dealt.items() if not examples]
    if empty:
        raise InputError(
            f"{paths[owner]}: too few questions on different documents to split; "
            f"nothing is left for data.{empty[0]}; name data.{empty[0]}.path"
        )
    origins.update(dict.fromkeys(missing, f"a share of {paths[owner]}"))
    return {**read, **dealt}, origins


def _written(options: DataOptions, sources: dict[str, Source]) -> list[Example] | None:
    """Examples written by a language model."""
    if options.written is None:
        return None
    if options.task != "mdqa":
        raise InputError(f"data.writer=llm writes for data=mdqa, not for data={options.task}")
    source = read_source(options.written, "example", task="mdqa")
    sources[options.written] = source
    return source.examples


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
        self.facts: dict[str, dict[str, Any]] = {}
        self._pools: dict[tuple[str, str, str], Pool] = {}

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
        count = self._count(split, parts)
        return Recipe(split, options.cell(split), [p.example for p in parts], weights, seed, count)

    def _count(self, split: str, parts: Sequence[CellRecipe]) -> int:
        wanted = getattr(self.options, f"num_{split}")
        sizes = [len(p.questions) for p in parts if p.questions is not None]
        sizes += [len(p.written) for p in parts if p.written is not None]
        most = min(sizes, default=None)
        if wanted is None:
            count = len(self.questions[split])
            return count if most is None else min(count, most)
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
        if _uses_real(options, concept, context):
            questions = self._ordered(split, concept, seed)
        return CellRecipe(
            split=split,
            task=options.task,
            cell=(concept, context),
            seed=seed,
            layout=Layout(limits, options.shuffle_documents, options.depths),
            encoder=self.encoder,
            pool=self._pool(split, context, seed, written),
            questions=questions,
            written=written,
        )

    def _ordered(self, split: str, concept: str, seed: int) -> Questions:
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
        return Questions(examples, order)

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
        text = needle.read_text(options.haystack) if options.haystack else _sample_text(split)
        depths = options.depths
        lengths = tuple(options.lengths) or (options.context_tokens,)
        grid = needle.Grid(self.questions[split], text, lengths, depths, self.encoder, seed, split)
        wanted = getattr(options, f"num_{split}")
        count = len(grid) if wanted is None else wanted
        if split != "train":
            count = min(count, max(len(grid), len(self.questions[split])))
        return Recipe(split, ("real", "real"), [grid.example], (1.0,), seed, count)


def _pooled(examples: Sequence[Example]) -> list[Document]:
    """Documents for others' contexts: gold ones first, so that the order is that of the source."""
    golds = [document for example in examples for document in gold_documents(example)]
    return golds + [document for example in examples for document in example.documents]


def _sample_text(split: str) -> list[Document]:
    """The embedded prose of a split, as one running text."""
    texts = [d.text for e in _sample("mdqa", split) for d in e.documents]
    texts += [d.text for d in _sample("summhay", split)[0].documents]
    runs = [run for text in dict.fromkeys(texts) for run in needle.as_paragraphs(text)]
    return [Document(f"p{number}", "", run) for number, run in enumerate(runs)]
