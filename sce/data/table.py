"""Built splits on disk: Arrow files that are mapped into memory, never read into it.

A folder holds shards of SHARD examples and a card.json. Shards do not depend on how many processes
write them, so a folder's bytes are the same with 1 or 8. `datasets.load_from_disk` reads it too.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter

from sce.data.encode import Asked, Encoded, Encoder
from sce.data.example import Document, Example
from sce.data.recipe import Recipe
from sce.data.splits import gold_documents
from sce.errors import InputError
from sce.metrics import normalize

SHARD = 256
CARD = "card.json"
SCHEMA = "sce.data/2"
_INTS = datasets.Sequence(datasets.Value("int32"))
_FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "task": datasets.Value("string"),
        "prompt_ids": _INTS,
        "target_ids": _INTS,
        "end_id": datasets.Value("int32"),
        "evidence": _INTS,
        "needles": _INTS,
        "cited": _INTS,
        "question": _INTS,
        "gold": _INTS,
        "null_start": datasets.Value("int32"),
        "null_ids": _INTS,
        "num_null": datasets.Value("int32"),
        "answers": datasets.Sequence(datasets.Value("string")),
        "num_documents": datasets.Value("int32"),
        "depth": datasets.Value("float32"),
        "own_leaks": datasets.Value("int32"),
        "own_drops": datasets.Value("int32"),
        "sha256": datasets.Value("string"),
        "text_sha256": datasets.Value("string"),
        # Hashes of what no other split may share, and of all documents, to check without the text.
        "own_keys": datasets.Sequence(datasets.Value("int64")),
        "needle_keys": datasets.Sequence(datasets.Value("int64")),
        "document_keys": datasets.Sequence(datasets.Value("int64")),
        "length": datasets.Value("int32"),
    }
)


@dataclass(frozen=True)
class Split:
    """One built split."""

    name: str
    cell: tuple[str, str]
    folder: Path
    card: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Identity of the composed examples, text and order."""
        return str(self.card["sha256"])

    @property
    def max_prompt_tokens(self) -> int:
        """Length of the longest prompt."""
        return int(self.card["prompt_tokens"]["max"])

    def described(self, cell: tuple[str, str] | None = None) -> str:
        """How many examples of what, and how long.

        Args:
            cell: what to call it; None: the split's own.
        """
        of = self.card["mix"] or ", ".join(cell or self.cell)
        return (
            f"{self.card['num_examples']:,} examples ({of}) from {self.card['source']}, prompts of "
            f"up to {self.max_prompt_tokens:,} tokens"
        )

    @cached_property
    def table(self) -> datasets.Dataset:
        """The mapped table."""
        files = sorted(self.folder.glob("data-*.arrow"))
        parts = [datasets.Dataset.from_file(str(file)) for file in files]
        return datasets.concatenate_datasets(parts).with_format("numpy")

    @cached_property
    def encoded(self) -> "EncodedTable":
        """The examples in token ids, one at a time."""
        return EncodedTable(self.table)

    def column(self, name: str) -> np.ndarray:
        """One number for every example."""
        return np.asarray(self.table.with_format("numpy")[name][:])


class EncodedTable(Sequence[Encoded]):
    """Rows of a mapped table as `Encoded`; nothing is kept."""

    def __init__(self, table: datasets.Dataset) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def lengths(self) -> list[int]:
        """Prompt tokens of every example."""
        return np.asarray(self._table["length"][:]).tolist()

    # Slices have no use here.
    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]
        """Example `index`."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = self._table[index % len(self)]

        def ints(name: str) -> np.ndarray:
            return np.asarray(row[name], dtype=np.int32)

        return Encoded(
            id=str(row["id"]),
            task=str(row["task"]),
            prompt_ids=ints("prompt_ids"),
            target_ids=ints("target_ids"),
            end_id=int(row["end_id"]),
            evidence=ints("evidence"),
            answers=tuple(str(answer) for answer in row["answers"]),
            needles=ints("needles"),
            cited=ints("cited"),
            asked=Asked(
                question=ints("question"),
                gold=ints("gold").reshape(-1, 2),
                null_start=int(row["null_start"]),
                null_ids=ints("null_ids"),
                num_null=int(row["num_null"]),
            ),
        )

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))


def num_shards(count: int) -> int:
    """Files that `count` examples take."""
    return -(-count // SHARD)


def write_shard(recipe: Recipe, encoder: Encoder, folder: Path, shard: int) -> int:
    """Make, encode and write the examples of one shard; the number of examples."""
    first = shard * SHARD
    last = min(len(recipe), first + SHARD)
    name = f"data-{shard:05d}-of-{num_shards(len(recipe)):05d}.arrow"
    partial = folder / f".{name}"
    with ArrowWriter(path=str(partial), features=_FEATURES, writer_batch_size=32) as writer:
        for index in range(first, last):
            example = recipe.example(index)
            if index == first:
                encoder.check_joined(example)
            writer.write(_row(example, encoder.encode(example)))
        writer.finalize()
    partial.rename(folder / name)
    return last - first


def _row(example: Example, encoded: Encoded) -> dict[str, Any]:
    content = example.to_json()
    gold, asked = gold_documents(example), encoded.asked
    assert asked is not None

    def texts(documents: Iterable[Document]) -> set[int]:
        return {_key(f"text {document.text}") for document in documents}

    return {
        "id": encoded.id,
        "task": encoded.task,
        "prompt_ids": encoded.prompt_ids,
        "target_ids": encoded.target_ids,
        "end_id": encoded.end_id,
        "evidence": encoded.evidence,
        "needles": encoded.needles,
        "cited": encoded.cited,
        "question": asked.question,
        "gold": asked.gold.ravel(),
        "null_start": asked.null_start,
        "null_ids": asked.null_ids,
        "num_null": asked.num_null,
        "answers": list(encoded.answers),
        "num_documents": len(example.documents),
        "depth": encoded.depth,
        "own_leaks": int(example.meta.get("own_leaks", 0)),
        "own_drops": int(example.meta.get("own_drops", 0)),
        "sha256": _sha256(content),
        "text_sha256": _sha256({**content, "id": None}),
        "own_keys": sorted({_key(f"question {normalize(example.question)}"), *texts(gold)}),
        "needle_keys": sorted({_key(f"needle {text}") for text in example.evidence_texts()}),
        "document_keys": sorted(texts(example.documents)),
        "length": len(encoded.prompt_ids),
    }


def _sha256(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _key(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def finish(folder: Path, card: dict[str, Any]) -> None:
    """Write what makes a folder of shards a data set: its card, last."""
    files = sorted(file.name for file in folder.glob("data-*.arrow"))
    state = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": str(card["sha256"])[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    datasets.DatasetInfo(features=_FEATURES).write_to_directory(str(folder))
    partial = folder / f".{CARD}"
    partial.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / CARD)


def read_split(folder: Path) -> Split:
    """A built split.

    Raises:
        InputError: the folder is none, or half written.
    """
    file = folder / CARD
    if not file.is_file():
        raise InputError(f"{folder}: no built data set (no {CARD} in it)")
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        if card["schema"] != SCHEMA:
            raise InputError(f"{folder}: schema {card['schema']!r}, not {SCHEMA!r}; build it anew")
        split = Split(card["split"], tuple(card["cell"]), folder, card)
        found, wanted = len(list(folder.glob("data-*.arrow"))), num_shards(card["num_examples"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not a data card ({error!r})") from None
    if found != wanted:
        raise InputError(f"{folder}: {found} of {wanted} Arrow files; build it anew")
    return split
