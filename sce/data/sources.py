"""Reading questions: JSON Lines (plain or .gz), and what Hugging Face `datasets` reads.

What a row means is the business of the format: `example` (Example JSONL) or a task's own, such as
`nq`. This file knows where rows come from and how to say which one is wrong.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sce.data.example import Example
from sce.data.mdqa import from_nq
from sce.errors import InputError

Row = Mapping[str, Any]

# What a row of each format looks like, and how it becomes an Example: reader(row, row_id).
_MARKS = {"example": {"documents", "evidence", "question"}, "nq": {"question", "answers", "ctxs"}}
_READERS: dict[str, Callable[[Row, str], Example]] = {
    "example": lambda row, _: Example.from_json(row),
    "nq": from_nq,
}


def read_questions(path: str, row_format: str = "auto") -> list[Example]:
    """All questions of a source, with their own documents, in file order.

    Args:
        path: a .jsonl or .jsonl.gz file, any file or folder `datasets` reads (.parquet, .arrow,
            .csv, a folder written by `save_to_disk`), or `hf:NAME:SPLIT` for a dataset of the hub.
        row_format: `example`, `nq`, or `auto` to guess from the first row.

    Raises:
        InputError: the source cannot be read or is empty, or a row (named by line) is malformed.
    """
    examples: list[Example] = []
    for where, row in _rows(path):
        if row_format == "auto":
            row_format = _guess_format(where, row)
        try:
            examples.append(_READERS[row_format](row, f"{row_format}-{len(examples)}"))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not examples:
        raise InputError(f"{path}: no questions in it")
    seen: dict[str, int] = {}
    for index, example in enumerate(examples):
        if seen.setdefault(example.id, index) != index:
            raise InputError(f"{path}: the id {example.id} stands twice")
    return examples


def _guess_format(where: str, row: Row) -> str:
    for name, marks in _MARKS.items():
        if marks <= row.keys():
            return name
    expected = "; ".join(f"{name}: {', '.join(sorted(marks))}" for name, marks in _MARKS.items())
    raise InputError(f"{where}: no known format has the fields {sorted(row)}; expected {expected}")


def _rows(path: str) -> Iterator[tuple[str, Row]]:
    if path.startswith("hf:"):
        return _hub_rows(path)
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"{path}: no such file or folder")
    if file.is_file() and file.name.removesuffix(".gz").endswith((".jsonl", ".json", ".txt")):
        return _jsonl_rows(file)
    return _dataset_rows(file)


def _jsonl_rows(file: Path) -> Iterator[tuple[str, Row]]:
    opener = gzip.open if file.suffix == ".gz" else open
    line_number = 0
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for line_number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{file}:{line_number}: not a JSON object")
                yield f"{file}:{line_number}", row
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{line_number}: not JSON ({error.msg})") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{file}:{line_number + 1}: cannot be read ({error})") from None


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
