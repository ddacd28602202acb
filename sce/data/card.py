"""The data card: what a built split holds, in numbers."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from sce.data.encode import Encoder
from sce.data.expressions import draw, num_needles
from sce.data.plan import Plan
from sce.data.recipe import Recipe
from sce.data.splits import Overlap
from sce.data.table import SCHEMA

_OUR_LICENCE = "written for this project, Apache-2.0"


def make(plan: Plan, recipe: Recipe, encoder: Encoder, folder: Path) -> dict[str, Any]:
    """The card of a split whose shards are in `folder`."""
    files = sorted(folder.glob("data-*.arrow"))
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(str(f)) for f in files])
    digests = "".join(table["sha256"][:])
    lengths = np.asarray(table["length"][:])
    depths = np.asarray(table["depth"][:], dtype=np.float64)
    leaks = np.asarray(table["own_leaks"][:])
    source = plan.origins[recipe.split]
    real = plan.made_of_real[recipe.split]
    if not any(real):
        source = plan.options.written or "invented facts"
    elif not all(real):
        source = f"{source}, and invented facts"
    ours = source in ("the sample", "invented facts", "the sample, and invented facts")
    return {
        "schema": SCHEMA,
        "split": recipe.split,
        "task": plan.options.task,
        "cell": list(plan.options.training if recipe.split == "train" else recipe.cell),
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
            "dropped": int(np.asarray(table["own_drops"][:]).sum()),
        },
        "selection": dict(plan.facts.get(recipe.split, {})),
        "source": source,
        "licence": _OUR_LICENCE if ours else "the source's",
        "rows_skipped": {path: len(s.skipped) for path, s in plan.sources.items()},
        "left_out": {path: dict(s.counts) for path, s in plan.sources.items() if s.counts},
        "questions_compared": str(plan.overlap),
        "tokenizer": {"name": encoder.tokenizer.name_or_path, "sha256": encoder.sha256},
        "prompt_sha256": encoder.prompt_sha256(plan.options.task),
        "options": asdict(plan.options),
        "versions": {name: version(name) for name in ("sce", "transformers", "datasets", "numpy")},
    }


def auc_of_real_and_high(plan: Plan, count: int = 500) -> float | None:
    """How well a small classifier tells high needles from real ones; 0.5 is not at all.

    Logistic regression on TF-IDF of words and pairs of words, five-fold cross-validated area under
    the ROC curve, on at most `count` needle sentences of each. The real ones are the training
    split's or, where that is data of the user's own, validation's. None with fewer than ten.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    questions = plan.questions["train" if plan.options.label is None else "val"]
    real = [text for example in questions for text in example.evidence_texts()][:count]
    if plan.options.task == "needle" or len(real) < 10:
        return None
    rng = np.random.default_rng(0)
    high: list[str] = []
    while len(high) < len(real):
        drawn = draw(plan.options.task, "high", num_needles(plan.options.task, rng), rng)
        high += [sentence for needle in drawn.needles for sentence in needle.sentences]
    high = high[: len(real)]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    labels = [0] * len(real) + [1] * len(high)
    return float(cross_val_score(model, real + high, labels, cv=folds, scoring="roc_auc").mean())


def as_markdown(cards: Mapping[str, Mapping[str, Any]], auc: float | None, overlap: Overlap) -> str:
    """The cards of all splits as one table, for people."""
    rows = {
        "cell": lambda c: c["mix"] or ", ".join(c["cell"]),
        "source": lambda c: c["source"],
        "licence": lambda c: c["licence"],
        "examples": lambda c: f"{c['num_examples']:,}",
        "prompt tokens": lambda c: _span_text(c["prompt_tokens"]),
        "target tokens": lambda c: _span_text(c["target_tokens"]),
        "evidence tokens": lambda c: _span_text(c["evidence_tokens"]),
        "documents": lambda c: _span_text(c["documents"]),
        "depth of the first evidence": lambda c: _span_text(c["depth"]),
        "the same example twice": lambda c: c["duplicates"]["examples"],
        "own documents that hold an answer": lambda c: _leak_text(c),
        "rows skipped": lambda c: sum(c["rows_skipped"].values()),
        "left out": lambda c: _left_out(c),
        "kept of a subset": lambda c: _pairs(c["selection"]),
        "written by": lambda c: c["writer"],
        "seed": lambda c: c["seed"],
        "sha256": lambda c: f"`{c['sha256'][:16]}`",
    }
    names = list(cards)
    first = cards[names[0]]
    lines = [
        f"# {first['task']}: data card",
        "",
        f"Tokenizer {first['tokenizer']['name']}. Shared between the splits: {overlap}.",
    ]
    if auc is not None:
        lines.append(
            f"\nA small classifier tells high needles from real ones with an AUC of {auc:.3f}."
        )
    lines += ["", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [
        f"| {row} | {' | '.join(str(get(cards[n])) for n in names)} |" for row, get in rows.items()
    ]
    return "\n".join([*lines, "", "![Prompt tokens and depths](card.png)", ""])


def _span_text(spread: Mapping[str, float]) -> str:
    mean, least, most = (
        f"{spread[name]:,.0f}" if spread["max"] >= 1000 else f"{spread[name]:.3g}"
        for name in ("mean", "min", "max")
    )
    return f"{mean} ({least} to {most})"


def _leak_text(card: Mapping[str, Any]) -> str:
    leaks = card["own_documents_that_hold_an_answer"]
    kept = f"{leaks['documents']} kept, in {leaks['examples']} examples"
    return f"{kept}; {leaks['dropped']} dropped"


def _left_out(card: Mapping[str, Any]) -> str:
    return "; ".join(_pairs(counts) for counts in card["left_out"].values()) or "nothing"


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()) or "-"


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
    """Examples that are the same but for their id, and questions or gold texts that come again."""
    texts = Counter(table["text_sha256"][:])
    keys = Counter(key for keys in table["own_keys"][:] for key in keys)
    return {
        "examples": sum(count - 1 for count in texts.values()),
        "questions_or_gold_documents": sum(count - 1 for count in keys.values()),
    }
