"""Reading questions: JSON Lines (plain or .gz), JSON, and what Hugging Face `datasets` reads.

What a row means is the business of the format: `example` (Example JSONL) or a task's own. This file
knows where rows come from and how to say which one is wrong.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from sce.data.example import Example
from sce.data.mdqa import from_nq
from sce.data.musique import from_musique
from sce.data.needle import from_needle
from sce.data.summhay import from_summhay
from sce.errors import InputError

Row = Mapping[str, Any]
# No row of text needs more; a file without line breaks would otherwise be read whole.
MAX_LINE_BYTES = 64 * 2**20


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


def _one(reader: Callable[[Row, str], Example]) -> Callable[[Row, str, Source], list[Example]]:
    return lambda row, row_id, source: [reader(row, row_id)]


# What a row of each format looks like, and how it becomes Examples.
_MARKS = {
    "example": {"documents", "evidence", "question"},
    "nq": {"question", "answers", "ctxs"},
    "musique": {"question", "question_decomposition", "paragraphs"},
    "summhay": {"subtopics", "documents"},
    "needle": {"needle", "question"},
}
_READERS: dict[str, Callable[[Row, str, Source], list[Example]]] = {
    "example": _one(lambda row, _: Example.from_json(row)),
    "nq": _one(from_nq),
    "musique": _one(from_musique),
    "summhay": lambda row, row_id, source: from_summhay(row, row_id, source.counts),
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
        path: a .jsonl, .json or .gz file, any file or folder `datasets` reads (.parquet, .arrow,
            .csv, a folder written by `save_to_disk`), or `hf:NAME:SPLIT` for a dataset of the hub.
        row_format: example, nq, musique, summhay, needle, or auto to guess from the first row.
        skip_bad_rows: pass over rows that are wrong, and list them, in place of raising.
        task: what the questions must be; None takes any.

    Raises:
        InputError: the source cannot be read or is empty, or a row (named by line) is malformed.
    """
    source = Source(path, row_format)
    seen: dict[str, str] = {}
    for where, row in _rows(path, source if skip_bad_rows else None):
        if source.format == "auto":
            source.format = _guess_format(where, row)
        try:
            found = _READERS[source.format](row, f"{source.format}-{len(seen)}", source)
            for example in found:
                if task is not None and example.task != task:
                    raise InputError(f"a row of task {example.task}, but data.task={task}")
                first = seen.setdefault(example.id, where)
                if first != where:
                    raise InputError(f"the id {example.id} stands twice (first at {first})")
        except InputError as error:
            if not skip_bad_rows:
                raise InputError(f"{where}: {error}") from None
            source.skipped.append(f"{where}: {error}")
            continue
        source.examples.extend(found)
    if not source.examples:
        more = f" ({len(source.skipped)} rows skipped)" if source.skipped else ""
        raise InputError(f"{path}: no questions in it{more}")
    return source


def _guess_format(where: str, row: Row) -> str:
    for name, marks in _MARKS.items():
        if marks <= row.keys():
            return name
    expected = "; ".join(f"{name}: {', '.join(sorted(marks))}" for name, marks in _MARKS.items())
    raise InputError(f"{where}: no known format has the fields {sorted(row)}; expected {expected}")


def _rows(path: str, skipping: Source | None) -> Iterator[tuple[str, Row]]:
    if path.startswith("hf:"):
        return _hub_rows(path)
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"{path}: no such file or folder")
    name = file.name.removesuffix(".gz")
    if file.is_file() and name.endswith(".json"):
        return _json_rows(file, skipping)
    if file.is_file() and name.endswith((".jsonl", ".txt")):
        return _jsonl_rows(file, skipping)
    return _dataset_rows(file)


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb"))


def _jsonl_rows(file: Path, skipping: Source | None) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        with _open(file) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{file}:{number}: a line of over {MAX_LINE_BYTES >> 20} MiB; JSON Lines "
                        "have one row a line"
                    )
                if not line.strip():
                    continue
                try:
                    yield f"{file}:{number}", _row(line)
                except InputError as error:
                    if skipping is None:
                        raise InputError(f"{file}:{number}: {error}") from None
                    skipping.skipped.append(f"{file}:{number}: {error}")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}:{number + 1}: cannot be read ({error})") from None


def _row(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg})") from None
    except RecursionError:
        raise InputError("not JSON that can be read (nested too deeply)") from None
    if not isinstance(row, dict):
        raise InputError("not a JSON object")
    return row


def _json_rows(file: Path, skipping: Source | None) -> Iterator[tuple[str, Row]]:
    """Rows of a .json file: one object, a list of objects, or after all JSON Lines."""
    try:
        with _open(file) as stream:
            content = json.loads(stream.read().decode("utf-8"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _jsonl_rows(file, skipping)
            return
        raise InputError(f"{file}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}:1: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (OSError, EOFError, zlib.error, RecursionError) as error:
        raise InputError(f"{file}:1: cannot be read ({error})") from None
    for index, row in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(row, dict):
            raise InputError(f"{file}[{index}]: not a JSON object")
        yield f"{file}[{index}]", row


def _dataset_rows(file: Path) -> Iterator[tuple[str, Row]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        if file.is_dir():
            dataset = datasets.load_from_disk(str(file))
        else:
            kind = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv"}.get(file.suffix)
            if kind is None:
                raise InputError(f"{file}: neither JSON Lines, Parquet, Arrow nor CSV by its name")
            dataset = datasets.load_dataset(kind, data_files=str(file), split="train")
    except (ValueError, OSError, DatasetsError) as error:
        raise InputError(f"{file}: datasets cannot read it ({_first_line(error)})") from None
    if isinstance(dataset, datasets.DatasetDict):
        raise InputError(f"{file}: holds the splits {sorted(dataset)}; name one of their folders")
    for index, row in enumerate(dataset):
        yield f"{file}[{index}]", dict(row)


def _hub_rows(path: str) -> Iterator[tuple[str, Row]]:
    import datasets

    name, _, split = path.removeprefix("hf:").partition(":")
    try:
        dataset = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the hub client raises many unrelated types
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"{path}: the hub's dataset cannot be loaded ({reason})") from None
    for index, row in enumerate(dataset):
        yield f"{path}[{index}]", dict(row)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
