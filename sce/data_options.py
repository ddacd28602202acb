"""The typed values of the data: its task, its splits, their cells, the size of a context."""

import re
from dataclasses import dataclass, field
from typing import Any

from sce.grid import check_cell, natural_context
from sce.options import CONCEPTS, FORMATS, LIMITS, TASKS, require, require_in

SPLITS = ("train", "val", "reference")
SHARES = (0.6, 0.2, 0.2)
# Prompts of a task's own: how long its answers get.
MAX_NEW_TOKENS = {"mdqa": 16, "musique": 16, "summhay": 48, "needle": 50}

# Documents in a context where nothing is said of its size: enough to look at on a CPU.
_NUM_DOCUMENTS = {"mdqa": 3, "musique": 5, "summhay": 10, "needle": None}


@dataclass
class SplitOptions:
    """One split: where its real questions come from and which cell of the grid it shows."""

    path: str | None = None
    """File, folder or `hf:NAME:SPLIT`; None takes this split from the embedded sample or, where
    another split's path names real questions, from those, split by document."""
    concept: str | None = None
    """Concept expression; None is the task's default (training: `data.concept`, others: real)."""
    context: str | None = None
    """Context diversity; None is the task's default (training: `data.context`, others: real)."""


@dataclass
class MixOptions:
    """One part of a mixture."""

    concept: str = "real"
    context: str | None = None
    """None: the same as the concept, real for limited."""
    weight: float = 1.0
    """Share of the training examples, relative to the other parts' weights."""

    def __post_init__(self) -> None:
        valid = 0 < self.weight < float("inf")
        require(valid, f"data.mix: weight must be > 0, got {self.weight}")

    @property
    def cell(self) -> tuple[str, str]:
        """(concept, context)."""
        return self.concept, self.context or natural_context(self.concept)


@dataclass
class DataOptions:
    """The task, its splits and the size of a context."""

    task: str = "mdqa"
    """mdqa, musique, summhay or needle."""
    format: str = "auto"
    """How rows are read: example, nq, musique, summhay, needle, or auto (by the first row)."""
    concept: str | None = None
    """Concept expression of the training split: real, limited, high, low, low_template, low_entity
    or symbolic. None: real where data.train.path names questions to train on, else high."""
    context: str | None = None
    """Context diversity of the training split: real, high, low or symbolic. None: as `concept`."""
    limited: str | None = None
    """concept=limited: keep real questions of this relation alone: who, when or where."""
    entity_base: str | None = None
    """concept=low_entity: sentences whose entities become symbols: real or high. None: real where
    the context is real, else high."""
    label: str | None = None
    """What data.train.path holds, where that is synthetic data of your own: records call it so, and
    validation and reference are never dealt from it."""
    mix: list[MixOptions] = field(default_factory=list)
    """Cells that the training split mixes, in place of concept and context."""
    writer: str = "grammar"
    """Who wrote the high documents: `grammar` (this package's bank) or `llm` (data.written)."""
    written: str | None = None
    """writer=llm: Example JSONL made by python -m sce.write."""
    built: str | None = None
    """Folder written by `python -m sce.dataset action=build` with these options; None: what is not
    built yet is built into the cache."""
    train: SplitOptions = field(default_factory=SplitOptions)
    val: SplitOptions = field(default_factory=SplitOptions)
    reference: SplitOptions = field(default_factory=SplitOptions)
    shares: list[float] = field(default_factory=lambda: list(SHARES))
    """Shares of train, val and reference where one file is dealt to several, relative to one
    another."""
    num_documents: Any = "auto"
    """Documents in a context at most; None: no limit of this sort. `auto`: None where
    context_tokens is given, else a few (mdqa 3, musique 5, summhay 10)."""
    context_tokens: int | None = None
    """Prompt tokens at most, counted by the model's own tokenizer; None: no limit of this sort."""
    distractors: str = "random"
    """Where a question's own documents do not fill the context: `random` or `bm25`, drawn from the
    other questions' documents of the same split, never one that holds an answer."""
    shuffle_documents: bool = True
    """Put the documents in an order drawn from (seed, example); False keeps the file's order where
    the context is real."""
    depth: Any = None
    """Where the evidence's documents stand: None anywhere (uniform), a number 0..1 at that share of
    the distractors, a list: example i takes the i-th depth, round and round."""
    haystack: list[str] = field(default_factory=list)
    """data=needle: .txt files (plain or .gz) that the needles stand in; []: the sample's text."""
    lengths: list[int] = field(default_factory=list)
    """data=needle: prompt tokens of a grid of lengths, taken in turn, before context_tokens."""
    on_bad_row: str = "error"
    """`error` stops at the first row that is wrong; `skip` passes over such rows, counted."""
    on_overlap: str = "error"
    """What happens to questions, documents or needles that two splits' own files share: `error`, or
    `drop` them from training (then from validation), counted."""
    questions_per_context: int = 1
    """Questions asked of one training context, each seeing it and itself; batch.train counts
    contexts."""
    num_train: int | None = None
    """Training examples; None: as many as the real split has, whatever the cell (matched sizes)."""
    num_val: int | None = 24
    """Validation examples at most; None: all of the split."""
    num_reference: int | None = 32
    """Reference examples at most; None: all of the split."""
    eval_seed: int = 0
    """Seed of the validation and reference contexts, the same for every run whatever its `seed`."""
    num_workers: int | None = None
    """Processes that build a data set of over 256 examples; None: one a core."""

    def __post_init__(self) -> None:
        for name, allowed in {
            "task": TASKS,
            "format": FORMATS,
            "distractors": ("random", "bm25"),
            "on_bad_row": ("error", "skip"),
            "on_overlap": ("error", "drop"),
            "writer": ("grammar", "llm"),
            "limited": LIMITS,
            "entity_base": ("real", "high"),
        }.items():
            if getattr(self, name) is not None:
                require_in(f"data.{name}", getattr(self, name), allowed)
        if self.num_documents == "auto":
            self.num_documents = None if self.context_tokens else _NUM_DOCUMENTS[self.task]
        self._check_numbers()
        self._check_shares()
        for split in SPLITS:
            for concept, context in self.cells(split):
                check_cell(f"data.{split}", self.task, concept, context)
        self._check_label()
        self._check_that_all_count()
        self._check_sharing()

    def _check_numbers(self) -> None:
        whole = isinstance(self.num_documents, int) and not isinstance(self.num_documents, bool)
        require(
            self.num_documents is None or whole,
            f"data.num_documents must be auto, null or a number, got {self.num_documents}",
        )
        counts = ("num_documents", "context_tokens", "num_train", "num_val", "num_reference")
        for name in (*counts, "num_workers", "questions_per_context"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"data.{name} must be >= 1, got {value}")
        require(self.eval_seed >= 0, f"data.eval_seed must be >= 0, got {self.eval_seed}")
        require(all(n >= 1 for n in self.lengths), f"data.lengths must be >= 1, got {self.lengths}")
        _ = self.depths

    def _check_shares(self) -> None:
        require(
            len(self.shares) == len(SPLITS) and all(0 < s < float("inf") for s in self.shares),
            f"data.shares must be three numbers > 0, of train, val and reference, got "
            f"{list(self.shares)}",
        )
        named = [name for name in SPLITS if name != "train" or self.label is None]
        paths = [getattr(self, name).path for name in named]
        deals = any(paths) and not all(paths) and self.task != "needle"
        require(
            deals or tuple(self.shares) == SHARES,
            f"data.shares deals one file of real questions to splits: name one of "
            f"{', '.join(f'data.{name}.path' for name in named)}, and leave another",
        )

    def _check_label(self) -> None:
        if self.label is None:
            return
        name = f"data.label={self.label}"
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.label) is not None
        require(
            plain and self.label not in (*CONCEPTS, "mix", "untuned"),
            f"{name}: letters, digits, '.', '_' and '-', and no concept's name",
        )
        require(self.task != "needle", f"{name}: needles are hidden in real text; leave it")
        require(self.train.path is not None, f"{name} names data of your own: give data.train.path")
        given = (self.concept, self.context, self.train.concept, self.train.context, *self.mix)
        require(
            not any(given),
            f"{name}: that data is taken as it is; leave data.concept, data.context and data.mix",
        )

    def _check_that_all_count(self) -> None:
        """Refuse options that would change nothing, and those that lack another."""
        concepts = {concept for split in SPLITS for concept, _ in self.cells(split)}
        for name in ("lengths", "haystack"):
            used = not getattr(self, name) or self.task == "needle"
            require(used, f"data.{name} is for data=needle alone")
        require(
            not self.mix or (self.concept is None and self.context is None),
            "data.mix names the cells of the training split; leave data.concept and data.context",
        )
        require(
            "limited" not in concepts or self.limited is not None,
            f"concept=limited needs data.limited={'|'.join(LIMITS)}",
        )
        require(
            self.limited is None or "limited" in concepts,
            f"data.limited={self.limited} changes nothing without data.concept=limited",
        )
        require(
            self.entity_base is None or "low_entity" in concepts,
            f"data.entity_base={self.entity_base} changes nothing without data.concept=low_entity",
        )
        require(
            (self.writer == "llm") == (self.written is not None),
            "data.writer=llm and data.written=FILE go together",
        )
        require(
            self.writer == "grammar" or any(c == "high" for c, _ in self.cells("train")),
            "data.writer=llm changes nothing without data.concept=high",
        )

    def _check_sharing(self) -> None:
        """Refuse contexts that so many questions cannot share."""
        count = self.questions_per_context
        if count == 1:
            return
        name = f"data.questions_per_context={count}"
        require(self.task != "needle", f"{name}: data=needle asks one question of a text")
        require(
            self.num_documents is None or self.num_documents >= count,
            f"{name} needs a document for each; data.num_documents={self.num_documents}",
        )
        require(
            self.num_train is None or self.num_train % count == 0,
            f"data.num_train={self.num_train} is no multiple of {name}",
        )
        require(
            ("low_entity", "real") not in self.cells("train"),
            f"{name}: low_entity in a real context renames what one question asks about for all",
        )

    def together(self, split: str) -> int:
        """Examples of a split that share one context: several in training alone."""
        return self.questions_per_context if split == "train" else 1

    @property
    def depths(self) -> tuple[float, ...] | None:
        """The depths that examples take in turn; None: uniform."""
        if self.depth is None:
            return None
        listed = self.depth if isinstance(self.depth, (list, tuple)) else [self.depth]
        valid = bool(listed) and all(
            isinstance(d, (int, float)) and not isinstance(d, bool) and 0 <= d <= 1 for d in listed
        )
        require(
            valid, f"data.depth must be null, a number 0..1 or a list of such, got {self.depth}"
        )
        return tuple(float(d) for d in listed)

    def cells(self, split: str) -> list[tuple[str, str]]:
        """The cells of a split: several only in a mixture."""
        if split == "train" and self.mix:
            return [part.cell for part in self.mix]
        return [self.cell(split)]

    def cell(self, split: str) -> tuple[str, str]:
        """(concept, context) of a split: `data.concept` speaks of the training data alone.

        Where only one of the two is given, the other is the same. A mixture is ("mix", "mix").
        """
        if split == "train" and self.mix:
            return "mix", "mix"
        options: SplitOptions = getattr(self, split)
        concept, context = options.concept, options.context
        if split == "train":
            concept, context = concept or self.concept, context or self.context
        default = "high" if split == "train" and self.train.path is None else "real"
        if self.task == "needle":
            default = "real"
        return (
            concept or context or default,
            context or (natural_context(concept) if concept else default),
        )

    @property
    def training(self) -> tuple[str, str]:
        """(concept, context) of the training data as records have it: a label is both."""
        return (self.label, self.label) if self.label else self.cell("train")

    @property
    def mix_text(self) -> str | None:
        """The mixture in a few words; None where there is none."""
        if not self.mix:
            return None
        total = sum(part.weight for part in self.mix)
        return " + ".join(f"{p.weight / total:.3g} {'/'.join(p.cell)}" for p in self.mix)
