"""A reference from several head sets, how far it can be relied on, and what is in a head set.

A reference is the mean of at least two models tuned on real data with different seeds, scored on
the same examples. What the seeds agree on is stored with it, to hold a run's agreement against. So
is what two halves of the examples agree on, which is the scores' own precision.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import permutations
from typing import Any

import numpy as np

from sce.errors import InputError
from sce.records import HeadScores, origin_differences

SEED = 0
"""Of the halves that are drawn."""
AGREED = (
    *("recall", "precision", "jaccard", "recall_at_k", "recall_learned"),
    *("cosine", "cosine_learned", "spearman"),
)
"""What is stored of an agreement, by the names of `sce.stats.Comparison`."""
SHARED = (
    *("model", "weights_sha256", "prompt_sha256", "data_sha256"),
    *("context_tokens", "dtype", "rope", "versions"),
)
"""Provenance that a reference takes from its members, who have it in common."""

_log = logging.getLogger("sce")


def average(
    names: Sequence[str],
    sets: Sequence[HeadScores],
    base: HeadScores | None,
    *,
    tau: float,
    k: int,
) -> HeadScores:
    """The mean of head sets scored on the same examples, with what the sets agree on.

    Where the scorer kept more examples of one model than of another, `num_examples` is the fewest.

    Args:
        names: of the sets, for messages.
        sets: of differently tuned models, at least two; or imported ones, from different files.
        base: the untuned model's scores, kept in `base_scores`.
        tau: a head is in a set if its score is above it; for `reliability`.
        k: size of the sets of recall_at_k; for `reliability`.

    Raises:
        InputError: they differ in model, data, prompt, scorer, mode, match or shape.
    """
    _require_members(names, sets, base)
    first, per_example = sets[0], _mean_per_example(sets)
    origin = {name: first.provenance.get(name) for name in SHARED}
    if origin["weights_sha256"] is None:
        known = ", ".join(names)
        _log.warning("the weights behind %s are unknown: see that they are one model's", known)
        origin["imported_from"] = [s.provenance.get("imported_from") for s in sets]
    base_scores = None if base is None else base.scores
    return HeadScores(
        scorer=first.scorer,
        mode=first.mode,
        match=first.match,
        scores=np.mean([s.scores for s in sets], axis=0),
        num_examples=min(s.num_examples for s in sets),
        per_example=per_example,
        provenance={**origin, "members": [_member(s.provenance) for s in sets]},
        base_scores=base_scores,
        reliability=_reliability(sets, per_example, base, tau=tau, k=k),
    )


def _require_members(
    names: Sequence[str], sets: Sequence[HeadScores], base: HeadScores | None
) -> None:
    models = [_model_of(s.provenance) for s in sets]
    if len(sets) < 2 or None in models or len(set(models)) < len(models):
        raise InputError(
            "an average is taken over at least two differently tuned models: name two or more "
            "files that sce.score wrote with different adapters, or runs' heads/step-N.json"
        )
    tuned = base is not None and {"adapter_sha256", "members"} & {
        name for name, value in base.provenance.items() if value
    }
    own = None if base is None else base.provenance.get("adapter")
    if tuned or (own or {}).get("step"):
        raise InputError("base is the untuned model's set, and this one is of a tuned model")
    others = list(zip(names, sets, strict=True))[1:]
    for name, other in others if base is None else [*others, ("base", base)]:
        _require_same(names[0], sets[0], name, other)


def _model_of(origin: Mapping[str, Any]) -> str | None:
    """What tells a tuned model from another; None: it is not known to be one.

    A run's own scores name its training data, seed and step, not the adapter that is saved later.
    """
    known = origin.get("adapter_sha256") or origin.get("file_sha256")
    adapter = origin.get("adapter") or {}
    if known is None and adapter.get("step") and adapter.get("train_sha256"):
        return f"{adapter['train_sha256']}, seed {adapter.get('seed')}, step {adapter['step']}"
    return known


def _require_same(name: str, one: HeadScores, other_name: str, other: HeadScores) -> None:
    for what in ("scorer", "mode", "match", "shape"):
        if getattr(one, what) != getattr(other, what):
            raise InputError(
                f"{name} and {other_name} cannot be averaged: {what} {getattr(one, what)} and "
                f"{getattr(other, what)}"
            )
    counts = _num_offered(one), _num_offered(other)
    if counts[0] != counts[1]:
        raise InputError(
            f"{name} and {other_name} cannot be averaged: {counts[0]} and {counts[1]} examples"
        )
    differs = origin_differences(one.provenance, other.provenance)
    if one.provenance.get("weights_sha256") != other.provenance.get("weights_sha256"):
        differs = ["model weights", *differs]
    if differs:
        raise InputError(
            f"{name} and {other_name} cannot be averaged: they differ in {', '.join(differs)}"
        )


def _num_offered(scores: HeadScores) -> int:
    """Examples that were scored, those included that the scorer did not keep."""
    offered, rows = scores.provenance.get("num_offered"), scores.per_example
    if isinstance(offered, int):
        return offered
    return scores.num_examples if rows is None else len(rows)


def _member(origin: Mapping[str, Any]) -> dict[str, Any]:
    if "imported_from" in origin:
        return {name: origin.get(name) for name in ("imported_from", "file_sha256")}
    return {"adapter_sha256": origin.get("adapter_sha256"), **(origin.get("adapter") or {})}


def _mean_per_example(sets: Sequence[HeadScores]) -> np.ndarray | None:
    """[examples, layers, heads], or None unless all sets have scores of the same examples.

    An example that one model's scorer kept and another's did not has no mean, and without it the
    mean over examples would not be the mean of the sets.
    """
    arrays = [s.per_example for s in sets if s.per_example is not None]
    if len(arrays) < len(sets):
        return None
    if len({array.shape for array in arrays}) > 1:
        return None
    kept = [~np.isnan(array).all(axis=(1, 2)) for array in arrays]
    if any((each != kept[0]).any() for each in kept):
        _log.info("the scores of single examples are left out: not all models kept the same ones")
        return None
    return np.mean(arrays, axis=0)


def _reliability(
    sets: Sequence[HeadScores],
    per_example: np.ndarray | None,
    base: HeadScores | None,
    *,
    tau: float,
    k: int,
) -> dict[str, Any]:
    untuned = None if base is None else base.scores
    return {
        "tau": tau,
        "k": k,
        "num_pairs": len(sets) * (len(sets) - 1),
        "seed_against_seed": _seed_against_seed(sets, untuned, tau=tau, k=k),
        "split_half": _split_half(per_example, base, tau=tau, k=k),
    }


def _seed_against_seed(
    sets: Sequence[HeadScores], base: np.ndarray | None, *, tau: float, k: int
) -> dict[str, float | None]:
    """Every set against every other, as a run is compared with a reference: the ceiling."""
    from sce.stats import compare  # scipy, which --help can do without

    pairs = [
        asdict(compare(one.scores, other.scores, base, tau=tau, k=k))
        for one, other in permutations(sets, 2)
    ]
    means = {}
    for name in AGREED:
        values = [pair[name] for pair in pairs if pair[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _split_half(
    per_example: np.ndarray | None, base: HeadScores | None, *, tau: float, k: int
) -> dict[str, Any] | None:
    """Test-retest reliability of the averaged scores; None without scores of the examples."""
    from sce.stats import split_half

    if per_example is None:
        return None
    rows = None if base is None else base.per_example
    untuned = rows if rows is not None and rows.shape == per_example.shape else None
    return split_half(per_example, untuned, tau=tau, k=k, seed=SEED)


def summary(name: str, head_scores: HeadScores, tau: float, k: int) -> str:
    """What a person wants to know of a head set at a glance."""
    from sce.stats import head_set

    scores = head_scores.scores
    layers, heads = head_scores.shape
    order = np.argsort(-scores, axis=None, kind="stable")[: min(k, 10)]
    top = ", ".join(f"{i // heads}-{i % heads} {scores.flat[i]:.3f}" for i in order)
    kind = "KV heads" if head_scores.scorer == "duo" else "heads"
    count = f"n = {n} examples" if (n := head_scores.num_examples) else "n unknown"
    lines = [
        f"{name}: {head_scores.scorer}, {head_scores.mode}, {head_scores.match}, "
        f"{layers} layers x {heads} {kind}, {count}",
        f"  above {tau:g}: {int(head_set(scores, tau).sum())} of {scores.size} heads",
        f"  top (layer-head): {top}",
    ]
    if source := head_scores.provenance.get("imported_from"):
        files = ", ".join(map(str, source)) if isinstance(source, list) else source
        lines.append(f"  imported from {files}: model, data and prompt are unknown")
    agreed = head_scores.reliability
    at = f"tau {agreed.get('tau')}, k {agreed.get('k')}"
    for key, label in (("seed_against_seed", "seed against seed"), ("split_half", "split half")):
        if shown := _shown(agreed.get(key)):
            lines.append(f"  {label} at {at}: {shown}")
    return "\n".join(lines)


def _shown(agreement: Any) -> str:
    """The measures of an agreement that exist, and over how many examples where it says so."""
    found = agreement if isinstance(agreement, Mapping) else {}
    values = {name: found.get(name) for name in AGREED}
    shown = [f"{n} {v:.3f}" for n, v in values.items() if isinstance(v, (int, float))]
    if shown and found.get("n"):
        shown.append(f"n = {found['n']} examples in {found.get('num_splits')} splits")
    return ", ".join(shown)
