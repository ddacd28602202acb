"""Which questions each split has: from its own file, dealt out of another's, or the sample.

What is shared between splits is the business of sce.data.splits.
"""

from collections.abc import Sequence
from pathlib import Path

from sce.data import needle
from sce.data.example import Document, Example
from sce.data.sources import Source, read_source
from sce.data.splits import split_by_document
from sce.data_options import SPLITS, DataOptions
from sce.errors import InputError

SAMPLE = Path(__file__).parent / "sample"


def real_questions(
    options: DataOptions, sources: dict[str, Source], names: Sequence[str]
) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """The questions of every split: each from its own path, or dealt out of another's.

    Training data with a label is the user's own, and no other split's.
    """
    paths = {name: getattr(options, name).path for name in SPLITS}
    sample: dict[str, str] = dict.fromkeys(SPLITS, "the sample")
    if not any(paths.values()):
        return {name: sample_questions(options.task, name) for name in SPLITS}, sample
    owners = [name for name in SPLITS if paths[name]]
    read = {name: _read(str(paths[name]), options, sources) for name in owners}
    origins = {name: str(paths[name]) for name in owners}
    if "train" not in owners:
        if "train" in names and _needs_questions(options, "train"):
            raise InputError(
                "this cell is made from real questions: name data.train.path to train on"
            )
        # Only counted: a synthetic split is as large as the sample's.
        read["train"], origins["train"] = sample_questions(options.task, "train"), "the sample"
    missing = [name for name in SPLITS if name not in read]
    dealers = [name for name in owners if name != "train" or options.label is None]
    # A few needles are for all depths and lengths, and never dealt.
    if options.task == "needle" or not dealers:
        for name in missing:
            read[name], origins[name] = sample_questions(options.task, name), "the sample"
        missing = []
    if not missing:
        return read, origins
    owner = dealers[0]
    shares = {n: s for n, s in zip(SPLITS, options.shares, strict=True) if n in (owner, *missing)}
    dealt = split_by_document(read[owner], shares, options.eval_seed)
    empty = [name for name, examples in dealt.items() if not examples]
    if empty:
        raise InputError(
            f"{paths[owner]}: too few questions on different documents to split; "
            f"nothing is left for data.{empty[0]}; name data.{empty[0]}.path"
        )
    origins.update(dict.fromkeys(missing, f"a share of {paths[owner]}"))
    return {**read, **dealt}, origins


def written_questions(options: DataOptions, sources: dict[str, Source]) -> list[Example] | None:
    """Examples written by a language model."""
    if options.written is None:
        return None
    if options.task != "mdqa":
        raise InputError(f"data.writer=llm writes for data=mdqa, not for data={options.task}")
    source = read_source(options.written, "example", task="mdqa")
    sources[options.written] = source
    return source.examples


def _read(path: str, options: DataOptions, sources: dict[str, Source]) -> list[Example]:
    if path not in sources:
        sources[path] = read_source(
            path,
            options.format,
            skip_bad_rows=options.on_bad_row == "skip",
            task=options.task,
        )
    return sources[path].examples


def _needs_questions(options: DataOptions, split: str) -> bool:
    """Whether a split's own cells are made from real questions."""
    return any(uses_real(options, *cell) for cell in options.cells(split))


def uses_real(options: DataOptions, concept: str, context: str) -> bool:
    """Whether a cell is made from real questions."""
    base = options.entity_base or ("real" if context == "real" else "high")
    made_of_real = concept in ("real", "limited") or context == "real"
    return made_of_real or (concept == "low_entity" and base == "real")


def sample_questions(task: str, split: str) -> list[Example]:
    """The embedded questions of a split."""
    folder = SAMPLE if task == "mdqa" else SAMPLE / task
    kind, row_format = {"mdqa": ("jsonl", "nq"), "summhay": ("json", "summhay")}.get(
        task, ("jsonl", task)
    )
    return read_source(str(folder / f"{split}.{kind}"), row_format).examples


def sample_text(split: str) -> list[Document]:
    """The embedded prose of a split, as one running text."""
    texts = [d.text for e in sample_questions("mdqa", split) for d in e.documents]
    texts += [d.text for d in sample_questions("summhay", split)[0].documents]
    runs = [run for text in dict.fromkeys(texts) for run in needle.as_paragraphs(text)]
    return [Document(f"p{number}", "", run) for number, run in enumerate(runs)]
