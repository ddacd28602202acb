"""How one scoring stands beside a reference: every measure with its interval, and what differs."""

from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Real

from sce.errors import InputError
from sce.records import HeadScores, origin_differences
from sce.stats import HeadMap, bootstrap_many, compare, mean_scores, num_kept

CONSTANT = ("recall_base", "cosine_base", "num_reference_heads")
"""What this run's examples do not change, so that it has no interval."""

Measures = dict[str, float | int | None]


def measures(
    per_example: Real[np.ndarray, "_examples _layers _heads"],
    reference: HeadMap | None,
    base: HeadMap | None,
    *,
    tau: float,
    k: int,
    num_resamples: int = 500,
) -> Measures:
    """Every field of `sce.stats.Comparison`, each but CONSTANT with 95% bounds over the examples.

    Args:
        per_example: scores of the run, S.
        reference: R, [layers, heads]; None: `num_heads` alone is known.
        base: B, the untuned model's scores, [layers, heads], or None.
        tau: a head is in a set if its mean score is above tau.
        k: size of the sets of recall_at_k.
        num_resamples: bootstrap resamples of the examples.

    Returns:
        `recall`, `recall_low`, `recall_high` and so on, and `num_examples`, over which all are
        taken. None for what does not exist.

    Raises:
        InputError: `k` is above the number of heads.
    """
    if reference is not None and k > reference.size:
        raise InputError(f"k={k}, but the model has {reference.size} heads; take fewer")

    def compared(mean: Float[np.ndarray, "_layers _heads"]) -> dict[str, float | None]:
        found = asdict(compare(mean, mean if reference is None else reference, base, tau=tau, k=k))
        names = found if reference is not None else ("num_heads",)
        return {name: None if found[name] is None else float(found[name]) for name in names}

    found: dict[str, float | int | None] = {**compared(mean_scores(per_example))}
    intervals = bootstrap_many(per_example, compared, seed=0, num_resamples=num_resamples)
    for name, value in list(found.items()):
        if name.startswith("num_") and value is not None:
            found[name] = int(value)
        if name not in CONSTANT:
            low, high = intervals[name] or (None, None)
            found |= {f"{name}_low": low, f"{name}_high": high}
    return {**found, "num_examples": num_kept(per_example)}


def require_same_score(reference: HeadScores, name: str, own: tuple[str, str, str]) -> None:
    """Refuse scores of another kind.

    Args:
        reference: a head set.
        name: what the message calls it.
        own: (scorer, mode, match) of the run.

    Raises:
        InputError: it has another scorer, mode or match.
    """
    for what, value in zip(("scorer", "mode", "match"), own, strict=True):
        theirs = getattr(reference, what)
        if theirs != value:
            raise InputError(
                f"{name}: {what}={theirs}, but the run has {what}={value}, and such scores are "
                f"never compared; take {what}={theirs}, or another {name}"
            )


def differences(reference: HeadScores, scores: HeadScores) -> list[str]:
    """Warnings about a reference that was scored on something else, or of nobody knows whom.

    Raises:
        InputError: its heads are those of a model of another shape.
    """
    if reference.shape != scores.shape:
        raise InputError(
            f"reference: {reference.shape[0]} layers of {reference.shape[1]} heads, but the model "
            f"has {scores.shape[0]} of {scores.shape[1]}; give a reference of the same model"
        )
    theirs, own = reference.provenance, scores.provenance
    warnings = []
    if other := origin_differences(theirs, own):
        warnings.append(
            f"the reference was scored with other {', '.join(other)}; head scores depend on them, "
            "so read recall with that in mind"
        )
    if not (theirs.get("weights_sha256") and own.get("weights_sha256")):
        warnings.append(
            "that the reference is of these very weights is for you to see to: they are not hashed "
            "here, and heads of different models have nothing in common"
        )
    return warnings
