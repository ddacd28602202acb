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
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sce.cache import cache_folder
from sce.data import card as cards
from sce.data.encode import Encoder
from sce.data.plan import Plan
from sce.data.recipe import Recipe
from sce.data.table import CARD, SHARD, Split, finish, num_shards, read_split, write_shard
from sce.errors import InputError

_log = logging.getLogger(__name__)


def build_missing(plan: Plan, encoder: Encoder, *, folder: Path | None = None) -> dict[str, Path]:
    """Build the splits of a plan that are not there yet.

    Args:
        plan: what to build.
        encoder: the one the plan was made with.
        folder: where to put them, each in a folder of its split's name; None: the cache.

    Returns:
        Split -> its folder.

    Raises:
        InputError: an example cannot be made, or splits share something after all.
    """
    folders = {}
    for name, recipe in plan.recipes.items():
        identity = _identity(plan, recipe, encoder)
        target = (folder / name) if folder else cache_folder() / "data" / identity
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes on a machine one builds, and the others wait and find it.
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not (target / CARD).is_file() or read_split(target).card["identity"] != identity:
                _build(plan, recipe, encoder, target, identity)
        folders[name] = target
    return folders


def open_splits(folders: Mapping[str, Path]) -> dict[str, Split]:
    """Built splits, mapped into memory, and checked to share nothing.

    Raises:
        InputError: a folder is not there, or two splits share a question, document or needle.
    """
    splits = {name: read_split(folder) for name, folder in folders.items()}
    check_built(splits)
    return splits


def check_built(splits: Mapping[str, Split]) -> None:
    """Raise `InputError` if composed examples of two splits share anything, by its hash."""
    keys = {
        name: (_hashes(split, "own_keys"), _hashes(split, "document_keys"))
        for name, split in splits.items()
    }
    names = list(keys)
    for first, left in enumerate(names):
        for right in names[first + 1 :]:
            shared = np.intersect1d(keys[left][0], keys[right][0])
            if len(shared):
                whose = _owner(splits[left], int(shared[0]))
                raise InputError(
                    f"data.{left} and data.{right} share {len(shared)} questions, needles or "
                    f"documents, one of them with example {whose} of data.{left}"
                )


def _hashes(split: Split, column: str) -> np.ndarray:
    arrow = split.table.data.column(column).combine_chunks().flatten()
    return np.unique(arrow.to_numpy(zero_copy_only=False))


def _owner(split: Split, key: int) -> str:
    names, keys = split.table["id"][:], split.table["own_keys"][:]
    return next(str(name) for name, own in zip(names, keys, strict=True) if key in own)


def _build(plan: Plan, recipe: Recipe, encoder: Encoder, target: Path, identity: str) -> None:
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    temporary.chmod(0o755)
    try:
        _write_shards(recipe, encoder, temporary, plan.options.num_workers)
        card = cards.make(plan, recipe, encoder, temporary)
        finish(temporary, {**card, "identity": identity})
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


def _each(write: Any, shards: int, workers: int | None) -> Iterator[int]:
    processes = min(workers or os.cpu_count() or 1, shards)
    if processes == 1:
        yield from map(write, range(shards))
        return
    # Forked, so that sources, pools and their indices are shared and not sent.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    global _WRITE
    _WRITE = write
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_in_worker, range(shards))


_WRITE: Any = None


def _in_worker(shard: int) -> int:
    return _WRITE(shard)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )


def _identity(plan: Plan, recipe: Recipe, encoder: Encoder) -> str:
    """Hash of all that decides what a split holds."""
    options = asdict(plan.options)
    for name in ("num_workers", "num_train", "num_val", "num_reference", "on_bad_row"):
        options.pop(name)
    if recipe.split != "train":  # what only the training split is made of
        for name in ("concept", "context", "limited", "mix", "writer", "written", "train"):
            options.pop(name)
        options["train"] = plan.options.train.path
    content = {
        "options": options,
        "split": recipe.split,
        "cell": recipe.cell,
        "seed": recipe.seed,
        "count": len(recipe),
        "sources": {path: source_sha256(path) for path in sorted(plan.sources)},
        "haystack": [source_sha256(path) for path in plan.options.haystack],
        "encoder": encoder.sha256,
        "prompt": encoder.prompt_sha256(plan.options.task),
        "code": code_sha256(),
        "skipped": {path: len(s.skipped) for path, s in sorted(plan.sources.items())},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def source_sha256(path: str) -> str:
    """Identity of a source: its bytes, or a hub's name for it."""
    if path.startswith("hf:"):
        return path
    source = Path(path).expanduser()
    files = sorted(f for f in source.rglob("*") if f.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@cache
def code_sha256() -> str:
    """Identity of the code and texts that make examples."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".json", ".jsonl"):
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


__all__ = ["SHARD", "build_missing", "check_built", "code_sha256", "open_splits", "source_sha256"]
