"""Reading questions: what the rows of a source mean, and which of them are wrong.

What a row means is the business of the format: `example` (Example JSONL) or a task's own. Where
rows come from is the business of `rows`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sce.data.example import Example
from sce.data.mdqa import from_nq
from sce.data.musique import from_musique
from sce.data.needle import from_needle
from sce.data.rows import Row, rows_of
from sce.data.summhay import from_summhay
from sce.errors import InputError

_MAX_MESSAGE = 400


@dataclass
class Source:
    """The questions of one source, and what was left out."""

    path: str
    format: str
    examples: list[Example] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """One line for every row passed over (on_bad_row=skip), with file and line."""
    counts: Counter[str] = field(default_factory=Counter)
    """What a format left out of good rows, by name."""


def _one(reader: Callable[[Row, str], Example]) -> Callable[[Row, str, Counter], list[Example]]:
    return lambda row, row_id, counts: [reader(row, row_id)]


# What a row of each format looks like, and how it becomes Examples.
_MARKS = {
    "example": {"documents", "evidence", "question"},
    "nq": {"question", "answers", "ctxs"},
    "musique": {"question", "question_decomposition", "paragraphs"},
    "summhay": {"subtopics", "documents"},
    "needle": {"needle", "question"},
}
_READERS: dict[str, Callable[[Row, str, Counter], list[Example]]] = {
    "example": _one(lambda row, _: Example.from_json(row)),
    "nq": _one(from_nq),
    "musique": _one(from_musique),
    "summhay": from_summhay,
    "needle": _one(from_needle),
}


def read_questions(path: str, row_format: str = "auto") -> list[Example]:
    """All questions of a source, with their own documents, in file order; see `read_source`."""
    return read_source(path, row_format).examples


def read_source(
    path: str, row_format: str = "auto", *, skip_bad_rows: bool = False, task: str | None = None
) -> Source:
    """Read a source.

    Args:
        path: a .jsonl, .json or .csv file, plain or .gz, any file or folder `datasets` reads
            (.parquet, .arrow, a folder written by `save_to_disk`), or `hf:NAME:SPLIT` for a dataset
            of the hub.
        row_format: example, nq, musique, summhay, needle, or auto to guess from the first row.
        skip_bad_rows: pass over rows that are wrong, and list them, in place of raising. A file
            that cannot be read on, such as a .gz that is cut short, raises all the same.
        task: what the questions must be; None takes any.

    Raises:
        InputError: the source cannot be read or is empty, or a row (named by line) is malformed.
    """
    source = Source(path, row_format)
    seen: dict[str, str] = {}
    for where, row in rows_of(path):
        counts: Counter[str] = Counter()
        try:
            if isinstance(row, InputError):
                raise row
            if source.format == "auto":
                source.format = _guess_format(row)
            found = _READERS[source.format](row, f"{source.format}-{len(seen)}", counts)
            _check(found, task, seen)
        except InputError as error:
            problem = f"{where}: {_one_line(error)}"
            if not skip_bad_rows:
                raise InputError(problem) from None
            source.skipped.append(problem)
            continue
        seen.update((example.id, where) for example in found)
        source.counts.update(counts)
        source.examples.extend(found)
    if not source.examples:
        skipped = source.skipped
        more = f" ({len(skipped)} rows skipped, first: {skipped[0]})" if skipped else ""
        raise InputError(f"{path}: no questions in it{more}")
    return source


def _check(examples: Sequence[Example], task: str | None, seen: dict[str, str]) -> None:
    for example in examples:
        if task is not None and example.task != task:
            raise InputError(f"a row of task {example.task}, but data.task={task}")
        if example.id in seen:
            raise InputError(f"the id {example.id} stands twice (first at {seen[example.id]})")


def _guess_format(row: Row) -> str:
    for name, marks in _MARKS.items():
        if marks <= row.keys():
            return name
    expected = "; ".join(f"{name}: {', '.join(sorted(marks))}" for name, marks in _MARKS.items())
    fields = ", ".join(sorted(map(str, row)))
    raise InputError(f"no known format has the fields {fields:.80}; expected {expected}")


def _one_line(error: InputError) -> str:
    """The message without what a row may have put into it: line breaks, control codes, novels."""
    message = str(error)
    text = " ".join(message[:_MAX_MESSAGE].split()) + ("..." if message[_MAX_MESSAGE:] else "")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
