"""The data card: what a built split holds, in numbers."""

import hashlib
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from sce.data.encode import Encoder
from sce.data.plan import Plan
from sce.data.recipe import Recipe
from sce.data.table import SCHEMA

_SAMPLE_LICENCE = "written for this project, Apache-2.0"


def make(plan: Plan, recipe: Recipe, encoder: Encoder, folder: Path) -> dict[str, Any]:
    """The card of a split whose shards are in `folder`."""
    files = sorted(folder.glob("data-*.arrow"))
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(str(f)) for f in files])
    digests = "".join(table["sha256"][:])
    lengths = np.asarray(table["length"][:])
    depths = np.asarray(table["depth"][:], dtype=np.float64)
    leaks = np.asarray(table["own_leaks"][:])
    return {
        "schema": SCHEMA,
        "split": recipe.split,
        "task": plan.options.task,
        "cell": list(recipe.cell),
        "mix": plan.options.mix_text if recipe.cell == ("mix", "mix") else None,
        "writer": plan.options.writer if recipe.split == "train" else "grammar",
        "seed": recipe.seed,
        "num_examples": len(table),
        "sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "prompt_tokens": _spread(lengths),
        "target_tokens": _spread(np.asarray([len(t) for t in table["target_ids"][:]])),
        "documents": _spread(np.asarray(table["num_documents"][:])),
        "evidence_tokens": _spread(np.asarray([len(e) for e in table["evidence"][:]])),
        "depth": {**_spread(depths), "histogram": np.histogram(depths, 10, (0, 1))[0].tolist()},
        "token_histogram": _histogram(lengths),
        "duplicates": _duplicates(table),
        "own_documents_that_hold_an_answer": {
            "examples": int((leaks > 0).sum()),
            "documents": int(leaks.sum()),
        },
        "selection": dict(plan.facts.get(recipe.split, {})),
        "source": plan.origins[recipe.split],
        "licence": _SAMPLE_LICENCE
        if plan.origins[recipe.split] == "the sample"
        else "the source's",
        "rows_skipped": {path: len(s.skipped) for path, s in plan.sources.items()},
        "left_out": {path: dict(s.counts) for path, s in plan.sources.items() if s.counts},
        "shared_between_splits": str(plan.overlap),
        "tokenizer": {"name": encoder.tokenizer.name_or_path, "sha256": encoder.sha256},
        "prompt_sha256": encoder.prompt_sha256(plan.options.task),
        "options": asdict(plan.options),
        "versions": {name: version(name) for name in ("sce", "transformers", "datasets", "numpy")},
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        "min": round(float(values.min()), 4),
        "mean": round(float(values.mean()), 4),
        "max": round(float(values.max()), 4),
    }


def _histogram(values: np.ndarray) -> dict[str, list[int]]:
    counts, edges = np.histogram(values, 10)
    return {"edges": [int(edge) for edge in edges], "counts": counts.tolist()}


def _duplicates(table: datasets.Dataset) -> dict[str, int]:
    """Examples that are the same, and gold texts, questions or titles that come more than once."""
    texts = Counter(table["sha256"][:])
    keys = Counter(key for keys in table["own_keys"][:] for key in keys)
    return {
        "examples": sum(count - 1 for count in texts.values()),
        "questions_needles_or_documents": sum(count - 1 for count in keys.values()),
    }
