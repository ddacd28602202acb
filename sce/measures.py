"""How one scoring stands beside a reference: every measure with its interval, and what differs."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from jaxtyping import Real

from sce.errors import InputError
from sce.records import HeadScores, origin_differences
from sce.stats import HeadMap, compare, comparison_intervals, mean_of, mean_scores, num_kept

WITHOUT_RUN = ("recall_base", "cosine_base", "num_reference_heads")
"""What there is to say of R and B where the run has no scores."""

Measures = dict[str, float | int | None]
Examples = Real[np.ndarray, "_examples _layers _heads"]


def measures(
    per_example: Examples,
    reference: HeadMap | Examples | None,
    base: HeadMap | Examples | None,
    *,
    tau: float,
    k: int,
    num_resamples: int = 500,
) -> Measures:
    """Every field of `sce.stats.Comparison` with 95% bounds over the examples, where it has any.

    Args:
        per_example: scores of the run, S.
        reference: R, the mean or of the run's examples (`beside`); None: `num_heads` alone is
            known.
        base: B, the untuned model's scores, the mean or of the run's examples, or None.
        tau: a head is in a set if its mean score is above tau.
        k: size of the sets of recall_at_k.
        num_resamples: bootstrap resamples of the examples.

    Returns:
        `recall`, `recall_low`, `recall_high` and so on, bounds as `comparison_intervals`, and
        `num_examples`, over which all are taken. None for what does not exist.

    Raises:
        InputError: `k` is above the number of heads.
    """
    scores = mean_scores(per_example)
    if reference is not None and k > scores.size:
        raise InputError(f"k={k}, but the model has {scores.size} heads; take fewer")
    r = scores if reference is None else mean_of(reference)
    b = None if base is None else mean_of(base)
    intervals = comparison_intervals(
        per_example,
        r if reference is None else reference,
        base,
        tau=tau,
        k=k,
        seed=0,
        num_resamples=num_resamples,
    )
    found: Measures = {}
    for name, value in asdict(compare(scores, r, b, tau=tau, k=k)).items():
        if reference is not None or name == "num_heads":
            low, high = intervals[name] or (None, None)
            found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {**found, "num_examples": num_kept(per_example)}


def beside(scores: HeadScores, data_sha256: object, num_examples: int) -> HeadMap | Examples:
    """The scores of a set's single examples if these are the run's own examples, else their mean.

    Args:
        scores: of a reference, or of the untuned model.
        data_sha256: of the examples that the run's heads are scored on; None: not known.
        num_examples: of the run, those included that its scorer did not keep.
    """
    rows = scores.per_example
    known = data_sha256 is not None and scores.provenance.get("data_sha256") == data_sha256
    return rows if rows is not None and known and len(rows) == num_examples else scores.scores


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


def require_same_examples(first: HeadScores, name: str, origin: Mapping[str, object]) -> None:
    """Refuse the first scores of a run that goes on with other examples or prompts.

    Args:
        first: of the run's own folder.
        name: what the message calls them.
        origin: hashes of the data and prompts that the run goes on with.

    Raises:
        InputError: they are others.
    """
    for what in ("data", "prompt"):
        if first.provenance.get(f"{what}_sha256") != origin[f"{what}_sha256"]:
            raise InputError(
                f"{name}: scored with another {what}, so it is not what this run began with; give "
                "the examples it was started with"
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
