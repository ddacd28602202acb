"""Rows of files: JSON Lines (plain or .gz), JSON, CSV, and what Hugging Face `datasets` reads.

Knows where rows come from and how to name one; what a row means is not its business. A row that
cannot be parsed comes as the `InputError` it is, so that the reader may pass over it; a file that
cannot be read on raises.
"""

import codecs
import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from sce.errors import InputError

Row = Mapping[str, Any]
# No row of text needs more; a file without line breaks would otherwise be read whole.
MAX_LINE_BYTES = 64 * 2**20
# A .json file has no rows to stop at, and takes several times its size in memory.
MAX_JSON_BYTES = 2**30


class _NotJson(InputError):
    """What is no JSON, and the line (from 1) where it stops being so."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def rows_of(path: str) -> Iterator[tuple[str, Row | InputError]]:
    """(FILE:LINE or FILE[INDEX], row) of a source; see `sce.data.sources.read_source`."""
    if path.startswith("hf:"):
        return _hub_rows(path)
    try:
        file = Path(path).expanduser()
        exists = file.exists()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not exists:
        raise InputError(f"{path}: no such file or folder")
    name = file.name.removesuffix(".gz")
    if file.is_file() and name.endswith(".json"):
        return _json_rows(file)
    if file.is_file() and name.endswith((".jsonl", ".txt")):
        return _jsonl_rows(file)
    if file.is_file() and name.endswith(".csv"):
        return _csv_rows(file)
    return _dataset_rows(file)


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb"))


def _lines(file: Path) -> Iterator[tuple[int, bytes | InputError]]:
    """Numbered lines; one that is too long is an error, read on only if the next is asked for."""
    number = 0
    try:
        with _open(file) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) <= MAX_LINE_BYTES:
                    yield number, line
                    continue
                mib = MAX_LINE_BYTES >> 20
                yield number, InputError(f"a line of over {mib} MiB; there is one row a line")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(2**20)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}:{number + 1}: cannot be read ({error})") from None


def _jsonl_rows(file: Path) -> Iterator[tuple[str, Row | InputError]]:
    for number, line in _lines(file):
        if isinstance(line, InputError):
            yield f"{file}:{number}", line
        elif line.strip():
            try:
                row = _parsed(line)
            except _NotJson as error:
                row = error
            yield f"{file}:{number}", _as_row(row)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"{error.reason} at byte {error.start}"
        raise _NotJson(f"not UTF-8 ({reason})", line) from None
    except json.JSONDecodeError as error:
        raise _NotJson(f"not JSON ({error.msg} at column {error.colno})", error.lineno) from None
    except RecursionError:
        raise _NotJson("not JSON that can be read (nested too deeply)") from None
    except ValueError:  # Python converts no integer of more than 4300 digits
        raise _NotJson("not JSON that can be read (a number of thousands of digits)") from None


def _as_row(value: Any) -> Row | InputError:
    return value if isinstance(value, (dict, InputError)) else InputError("not a JSON object")


def _json_rows(file: Path) -> Iterator[tuple[str, Row | InputError]]:
    """Rows of a .json file: one object, a list of objects, or after all JSON Lines."""
    data = _whole(file)
    if not data.strip():
        return
    try:
        content = _parsed(data)
    except _NotJson as error:
        first = re.match(rb"\s*[^\n]*\n", data)
        if first is None or not _is_json(first[0]):
            raise InputError(f"{file}:{error.line}: {error}") from None
        yield from _jsonl_rows(file)
        return
    for index, row in enumerate(content if isinstance(content, list) else [content]):
        yield f"{file}[{index}]", _as_row(row)


def _whole(file: Path) -> bytes:
    try:
        with _open(file) as stream:
            small = file.stat().st_size <= MAX_JSON_BYTES
            data = stream.read(MAX_JSON_BYTES + 1) if small else b""
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}:1: cannot be read ({error})") from None
    if not small or len(data) > MAX_JSON_BYTES:
        raise InputError(
            f"{file}: over {MAX_JSON_BYTES >> 20} MiB, and a .json file is read whole; write it as "
            "JSON Lines (.jsonl), one row a line"
        )
    return data


def _is_json(data: bytes) -> bool:
    try:
        _parsed(data)
    except _NotJson:
        return False
    return True


def _csv_rows(file: Path) -> Iterator[tuple[str, Row | InputError]]:
    """Rows of a .csv file with a header; every cell is a text, and an empty one is missing."""
    reader = csv.reader(_csv_lines(file), strict=True)
    try:
        header = next((cells for cells in reader if not _is_blank(cells)), [])
        if len(set(header)) < len(header):
            raise InputError(f"{file}:1: two columns share a name")
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if _is_blank(cells):
                continue
            if len(cells) != len(header):
                yield where, InputError(f"{len(cells)} cells under {len(header)} names")
            elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
                yield where, InputError("not UTF-8")
            else:
                yield where, {n: cell or None for n, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}: not CSV ({error})") from None


def _is_blank(cells: list[str]) -> bool:
    """Whether a line had nothing in it, not even commas."""
    return len(cells) < 2 and not "".join(cells).strip()


def _csv_lines(file: Path) -> Iterator[str]:
    for number, line in _lines(file):
        if isinstance(line, InputError):
            raise InputError(f"{file}:{number}: {line}")
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        yield line.decode("utf-8", "surrogateescape")


def _dataset_rows(file: Path) -> Iterator[tuple[str, Row | InputError]]:
    import datasets

    kind = {".parquet": "parquet", ".arrow": "arrow"}.get(file.suffix)
    if kind is None and not file.is_dir():
        raise InputError(f"{file}: neither JSON Lines, JSON, Parquet, Arrow nor CSV by its name")
    try:
        with _silent_datasets():
            if file.is_dir():
                dataset = datasets.load_from_disk(str(file))
            else:
                files = glob.escape(str(file))
                dataset = datasets.load_dataset(str(kind), data_files=files, split="train")
    except Exception as error:  # datasets raises many unrelated types
        raise InputError(f"{file}: datasets cannot read it ({_reason(error)})") from None
    if isinstance(dataset, datasets.DatasetDict):
        raise InputError(f"{file}: holds the splits {sorted(dataset)}; name one of their folders")
    return _indexed_rows(str(file), dataset)


def _hub_rows(path: str) -> Iterator[tuple[str, Row | InputError]]:
    import datasets

    name, _, split = path.removeprefix("hf:").partition(":")
    try:
        dataset = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the hub client raises many unrelated types
        raise InputError(f"{path}: the hub's dataset cannot be loaded ({_reason(error)})") from None
    return _indexed_rows(path, dataset)


def _indexed_rows(path: str, dataset: Any) -> Iterator[tuple[str, Row | InputError]]:
    for index in range(len(dataset)):
        try:
            row = dict(dataset[index])
        except Exception as error:  # what a column's type raises for a value it cannot decode
            row = InputError(f"cannot be decoded ({_reason(error)})")
        yield f"{path}[{index}]", row


@contextmanager
def _silent_datasets() -> Iterator[None]:
    """Without the lines that `datasets` logs before it raises."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {next(iter(str(cause).splitlines()), 'no reason given')}"
