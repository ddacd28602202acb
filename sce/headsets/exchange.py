"""Head sets in the formats of other tools, and in ours (numpy only).

| kind | file | scorer, mode |
|---|---|---|
| `sce` | HeadScores JSON, schema sce.heads/1 | as it says |
| `wu2024` | JSON, `{"layer-head": [score of each run, ...]}` | wu2024_code, greedy |
| `qrhead` | JSON, `[["layer-head", score], ...]`, best first | query_focused, prefill |
| `duo` | TSV, a row a layer, a column a KV head; the others hold query heads | duo, optimised |

Sources: nightdessert/Retrieval_Head (Wu et al. 2024, arXiv 2404.15574), princeton-pli/QRHead (arXiv
2506.09944), mit-han-lab/duo-attention (arXiv 2410.10819). All may be gzipped, ours to read only.
"""

import gzip
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sce.errors import InputError
from sce.headsets.foreign import (
    HEAD_NAME,
    SCORERS,
    Shape,
    as_duo,
    as_qrhead,
    as_wu2024,
    read_duo,
    read_qrhead,
    read_wu2024,
)
from sce.outputs import whole
from sce.records import HeadScores
from sce.score_files import read_text

KINDS = ("sce", "wu2024", "qrhead", "duo")
ENDINGS = {
    "sce": (".json",),
    "wu2024": (".json", ".json.gz"),
    "qrhead": (".json", ".json.gz"),
    "duo": (".tsv", ".tsv.gz"),
}
_log = logging.getLogger("sce")

_READERS: dict[str, Callable[[str, Shape | None], HeadScores]] = {
    "wu2024": read_wu2024,
    "qrhead": read_qrhead,
    "duo": read_duo,
}
_WRITERS: dict[str, Callable[[HeadScores], str]] = {
    "wu2024": as_wu2024,
    "qrhead": as_qrhead,
    "duo": as_duo,
}


def read(file: Path, kind: str | None = None, shape: Shape | None = None) -> HeadScores:
    """A head set from a file of any kind.

    An imported set has match "exact" and a provenance that names the file and its sha256, but no
    weights. The examples of a `wu2024` set are the runs; the other two hold none, and
    num_examples is 0. A DuoAttention file has one column a key-value head, and is read in that
    shape.

    Args:
        file: .json or .tsv, or either with .gz.
        kind: one of `KINDS`; None guesses from the content, then from the name.
        shape: (layers, heads) of the model. Heads that a `wu2024` or `qrhead` file leaves out
            then score 0, which is logged; without it the file must name them all.

    Raises:
        InputError: names the file, its format and what is wrong with it.
    """
    if kind is not None:
        require_kind("kind", kind)
    try:
        text = read_text(file)
        kind = kind or guess(file, text)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if kind == "sce":
        head_scores = HeadScores.load(file)
    else:
        try:
            head_scores = _READERS[kind](text, shape)
        except InputError as error:
            raise InputError(f"{file}, read as {kind}: {error}") from None
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        head_scores.provenance = {"imported_from": file.name, "file_sha256": sha256}
    if shape is not None and head_scores.shape != shape:
        raise InputError(f"{file} holds heads {head_scores.shape}, but shape={list(shape)}")
    return head_scores


def guess(file: Path, text: str) -> str:
    """The kind of a file, by its first characters and keys, then by its name.

    Raises:
        InputError: it is none of them.
    """
    start = text.lstrip()[:1]
    if start == "[":
        return "qrhead"
    if start == "{":
        # The first key tells a Wu et al. file, even one that breaks off later.
        first = re.match(r'\s*\{\s*(?:"([^"]*)"|\})', text)
        named = first is not None and (first[1] is None or HEAD_NAME.fullmatch(first[1]))
        return "wu2024" if named else "sce"
    suffixes = file.name.removesuffix(".gz")
    if suffixes.endswith(".tsv") or "\t" in text.partition("\n")[0]:
        return "duo"
    if suffixes.endswith(".json"):
        return "sce"
    raise InputError(f"not a head set in any known format ({', '.join(KINDS)})")


def write(head_scores: HeadScores, file: Path, kind: str) -> None:
    """Write a head set as a file of a kind, whole or not at all, and log what that file loses.

    Scores have 9 digits after the point. A `wu2024` file lists the kept examples' scores, or
    where there are none the mean alone.

    Raises:
        InputError: an unknown kind, a name that does not end as that kind's do, or a file exists.
    """
    require_kind("to", kind)
    require_new(file, kind)
    if kind == "sce":
        head_scores.save(file)
        return
    text = _WRITERS[kind](head_scores)
    data = text.encode("utf-8")
    _write_whole(file, gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)
    _log.info("%s: as %s it does not hold %s", file, kind, "; ".join(_lost(head_scores, kind)))


def require_kind(name: str, kind: str) -> None:
    """Raise `InputError` unless `kind`, the value of `name`, is one of `KINDS`."""
    if kind not in KINDS:
        raise InputError(f"{name}={kind}: choose from {', '.join(KINDS)}")


def require_new(file: Path, kind: str) -> None:
    """Raise `InputError` unless `file` can be written as a file of `kind` and over no other."""
    if not file.name.endswith(ENDINGS[kind]):
        raise InputError(
            f"out={file}: the name of a {kind} file ends in {' or '.join(ENDINGS[kind])}"
        )
    for taken in (file, *([file.with_suffix(".npz")] if kind == "sce" else [])):
        if taken.exists():
            raise InputError(f"{taken} exists; name another file or delete it")


def _lost(head_scores: HeadScores, kind: str) -> list[str]:
    """What a file of another tool does not say of a head set."""
    scorer, mode = SCORERS[kind]
    lost = ["where the scores come from (model, data, prompt)"]
    if (head_scores.scorer, head_scores.mode, head_scores.match) != (scorer, mode, "exact"):
        own = f"{head_scores.scorer}, {head_scores.mode}, {head_scores.match}"
        lost.append(f"that they are {own}: whoever reads it back takes them for {scorer}, {mode}")
    if head_scores.base_scores is not None:
        lost.append("the untuned model's scores")
    if head_scores.reliability:
        lost.append("reliability")
    lost += _lost_examples(head_scores, kind)
    if kind == "duo" and head_scores.scorer != scorer:
        lost.append("that its columns are query heads, where DuoAttention has KV heads")
    if head_scores.scorer == "duo" and kind != "duo":
        lost.append("that its heads are KV heads, where this format has query heads")
    return lost


def _lost_examples(head_scores: HeadScores, kind: str) -> list[str]:
    rows, count = head_scores.per_example, head_scores.num_examples
    if kind == "wu2024":
        if rows is None:
            return ["more than the mean of each head, as one run"]
        return ["which examples were not kept"] if np.isnan(rows).any() else []
    if rows is not None:
        return [f"the scores of the {count} examples"]
    return [f"the number of examples, {count}"] if count else []


def _write_whole(file: Path, data: bytes) -> None:
    with whole(file) as part:
        part.write_bytes(data)
