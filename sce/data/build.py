"""Build what a plan says, once: under a lock, in several processes, into the cache or a folder.

The folder's name is the hash of everything that decides its content: options, seed, sources,
tokenizer, prompt and this package's data code. Whoever asks for the same data finds it there.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache, partial
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sce.cache import cache_folder
from sce.data import card as cards
from sce.data.encode import Encoder
from sce.data.plan import Plan
from sce.data.recipe import Recipe
from sce.data.splits import Overlap
from sce.data.table import CARD, Split, finish, num_shards, read_split, write_shard
from sce.data_options import SHARES, SPLITS
from sce.errors import InputError

_log = logging.getLogger(__name__)


def build_missing(plan: Plan, encoder: Encoder, *, out: Path | None = None) -> dict[str, Path]:
    """Build the splits of a plan that are not there yet.

    Args:
        plan: what to build; with `data.built` its splits are taken from that folder.
        encoder: the one the plan was made with.
        out: where to put them, each in a folder of its split's name; None: the cache.

    Returns:
        Split -> its folder.

    Raises:
        InputError: an example cannot be made, or the folder that is named holds other data.
    """
    built = plan.options.built
    folders = {}
    for name, recipe in plan.recipes.items():
        content = _content(plan, recipe, encoder)
        if built is not None and out is None:
            folders[name] = _built(Path(built).expanduser() / name, content)
            continue
        target = out / name if out else cache_folder() / "data" / _digest(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes on a machine one builds, and the others wait and find it.
        with nullcontext() if out else FileLock(target.with_name(f".{target.name}.lock")):
            if not (target / CARD).is_file() or read_split(target).card["content"] != content:
                _build(plan, recipe, encoder, target, content)
        folders[name] = target
    return folders


def _built(folder: Path, content: dict[str, Any]) -> Path:
    """The folder, if it holds what is asked for; data made by an earlier version will do."""
    theirs = read_split(folder).card["content"]
    differs = sorted(key for key in content if key != "code" and theirs.get(key) != content[key])
    if differs:
        own, other = content[differs[0]], theirs.get(differs[0])
        if differs[0] == "options" and isinstance(other, dict):
            names = [n for n in {**own, **other} if own.get(n) != other.get(n)] or ["?"]
            differs[0] = f"data.{names[0]}"
            own, other = own.get(names[0]), other.get(names[0])
        raise InputError(
            f"data.built={folder.parent}: its {folder.name} split was built with "
            f"{differs[0]}={other}, but this run has {own}; repeat the options, or build it anew"
        )
    return folder


def open_splits(folders: Mapping[str, Path]) -> tuple[dict[str, Split], Overlap]:
    """Built splits, mapped into memory, and what was compared between them.

    Raises:
        InputError: a folder is not there, or two splits share a question, document or needle.
    """
    splits = {name: read_split(folder) for name, folder in folders.items()}
    return splits, check_built(splits)


def check_built(splits: Mapping[str, Split]) -> Overlap:
    """Compare composed examples of all splits, by hashes of their texts.

    Questions, needles and gold documents of one split must be no question, needle or document of
    another's contexts.

    Raises:
        InputError: two splits share something.
    """
    asked = {name: _hashes(split, "own_keys") for name, split in splits.items()}
    needles = {name: _hashes(split, "needle_keys") for name, split in splits.items()}
    shown = {name: _hashes(split, "document_keys") for name, split in splits.items()}
    for left, right in permutations(splits, 2):
        everything = np.union1d(asked[right], shown[right])
        shared = np.intersect1d(asked[left], everything)
        shared = np.union1d(shared, np.intersect1d(needles[left], needles[right]))
        if len(shared):
            whose = _owner(splits[left], int(shared[0]))
            raise InputError(
                f"data.{left} and data.{right} share {len(shared)} questions, needles or "
                f"documents, one of them with example {whose} of data.{left}"
            )
    return Overlap(
        questions={name: len(split.encoded) for name, split in splits.items()},
        documents={name: len(keys) for name, keys in shown.items()},
        needles={name: len(keys) for name, keys in needles.items()},
        removed={},
    )


def _hashes(split: Split, column: str) -> np.ndarray:
    arrow = split.table.data.column(column).combine_chunks().flatten()
    return np.unique(arrow.to_numpy(zero_copy_only=False))


def _owner(split: Split, key: int) -> str:
    columns = (split.table[name][:] for name in ("id", "own_keys", "needle_keys"))
    rows = zip(*columns, strict=True)
    return next(str(name) for name, own, needles in rows if key in own or key in needles)


def _build(
    plan: Plan, recipe: Recipe, encoder: Encoder, target: Path, content: dict[str, Any]
) -> None:
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    temporary.chmod(0o755)
    try:
        _write_shards(recipe, encoder, temporary, plan.options.num_workers)
        finish(temporary, {**cards.make(plan, recipe, encoder, temporary), "content": content})
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_shards(recipe: Recipe, encoder: Encoder, folder: Path, workers: int | None) -> None:
    shards = num_shards(len(recipe))
    write = partial(write_shard, recipe, encoder, folder)
    with _progress() as progress:
        task = progress.add_task(f"building {recipe.split}", total=len(recipe))
        for done in _each(write, shards, workers):
            progress.advance(task, done)


def _each(write: Callable[[int], int], shards: int, workers: int | None) -> Iterator[int]:
    """Run `write` for every shard; in forked processes, which share sources, pools and indices."""
    processes = min(workers or os.cpu_count() or 1, shards)
    if processes == 1:
        yield from map(write, range(shards))
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _FORKED["write"] = write  # not sent: a recipe's index need not be picklable
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(_in_worker, range(shards))


_FORKED: dict[str, Callable[[int], int]] = {}


def _in_worker(shard: int) -> int:
    return _FORKED["write"](shard)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),  # a file gets no empty lines
    )


def _content(plan: Plan, recipe: Recipe, encoder: Encoder) -> dict[str, Any]:
    """All that decides what a split holds, in plain types."""
    options = asdict(plan.options)
    # What the cell, the counts and the sources below say better, or what changes nothing.
    for name in (*SPLITS, "concept", "context", "num_workers", "num_train", "num_val"):
        options.pop(name)
    for name in ("num_reference", "on_bad_row", "built", "haystack", "written"):
        options.pop(name)
    train = recipe.split == "train"
    if recipe.together == 1:
        options.pop("questions_per_context")
    if tuple(options["shares"]) == SHARES:
        options.pop("shares")
    if options["label"] is None:
        options.pop("label")
    if not train:
        options.pop("label", None)
        options.pop("mix")
        options.pop("writer")
    paths = {name: getattr(plan.options, name).path for name in SPLITS}
    return {
        "options": json.loads(json.dumps(options)),
        "split": recipe.split,
        "cell": list(recipe.cell),
        "seed": recipe.seed,
        "num_examples": len(recipe),
        # By content, not by name; of all splits, since what one has the others lose.
        "sources": {name: path and source_sha256(path) for name, path in paths.items()},
        "written": source_sha256(plan.options.written) if train and plan.options.written else None,
        "haystack": [source_sha256(path) for path in plan.options.haystack],
        "tokenizer": encoder.sha256,
        "prompt": encoder.prompt_sha256(plan.options.task),
        "rows_skipped": sum(len(source.skipped) for source in plan.sources.values()),
        "code": code_sha256(),
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def source_sha256(path: str) -> str:
    """Identity of a source: its bytes, or a hub's name for it."""
    if path.startswith("hf:"):
        return path
    source = Path(path).expanduser()
    files = sorted(f for f in source.rglob("*") if f.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(_file_sha256(file, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


@cache
def _file_sha256(file: Path, size: int, changed: int) -> bytes:
    """Of the bytes, read once for as long as size and time of change stay: a run asks often."""
    del size, changed
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@cache
def code_sha256() -> str:
    """Identity of the code and texts that make examples, and of the libraries they lean on."""
    folder = Path(__file__).parent
    files = [*sorted(folder.rglob("*")), folder.parent / "metrics.py"]
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in (".py", ".json", ".jsonl"):
            digest.update(f"{file.name}\n".encode())
            digest.update(file.read_bytes())
    for library in ("sentencex", "bm25s", "scikit-learn", "numpy"):
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()
