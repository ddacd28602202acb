"""How sure a comparison of two maps of head scores is: its measures over resampled examples.

The run, the reference and the untuned model scored on the same examples share what is odd about
these, so they are drawn together. What was scored on others, or is known by its mean alone, stays
as it is.
"""

from dataclasses import asdict

import numpy as np

from sce.stats.resampling import PerExample, bootstrap_many, kept_examples, mean_scores
from sce.stats.series import HeadMap
from sce.stats.sets import compare

PULLED_DOWN = ("cosine", "cosine_base", "cosine_learned", "spearman")
"""Measures that noise lowers, so that a resample of noisy scores lies below their estimate."""
OF_REFERENCE = ("num_reference_heads",)
OF_REFERENCE_AND_BASE = ("recall_base", "cosine_base")

Intervals = dict[str, tuple[float, float] | None]


def comparison_intervals(  # noqa: PLR0913 - what is compared, and how it is drawn
    per_example: PerExample,
    reference: HeadMap | PerExample,
    base: HeadMap | PerExample | None,
    *,
    tau: float,
    k: int,
    seed: int,
    num_resamples: int = 2000,
) -> Intervals:
    """95% interval over the examples for every field of `Comparison`, all from the same resamples.

    Args:
        per_example: scores of the run, S.
        reference: R's scores of S's examples, in S's order, which are then drawn with S's; or its
            mean, which stays as it is. It also does if R's scorer kept other examples than S's.
        base: the same of the untuned model, B, or None.
        tau: a head is in a set if its mean score is above tau.
        k: size of the sets of recall_at_k.
        seed: of the resamples.
        num_resamples: of the examples.

    Returns:
        Percentiles of the resamples; for `PULLED_DOWN` these moved onto the estimate
        (`bootstrap_many`), so that they say what as many other examples would give. None where
        nothing of a measure was drawn, or `bootstrap_many` has none.

    Raises:
        ValueError: shapes differ.
    """
    parts, still = [per_example], dict[str, HeadMap | None]()
    for name, scores in (("r", reference), ("b", base)):
        if scores is not None and _same_kept(per_example, scores):
            parts.append(scores)
        else:
            still[name] = None if scores is None else mean_of(scores)
    mean, drawn = mean_of(reference), [name for name in "srb" if name not in still]

    def compared(joined: HeadMap) -> dict[str, float | None]:
        maps = dict(zip(drawn, np.split(joined, len(drawn), axis=1), strict=True))
        r, b = maps.get("r", mean), maps.get("b", still.get("b"))
        found = asdict(compare(maps["s"], r, b, tau=tau, k=k))
        return {name: None if value is None else float(value) for name, value in found.items()}

    found = bootstrap_many(
        np.concatenate(parts, axis=2),
        compared,
        centred=PULLED_DOWN,
        seed=seed,
        num_resamples=num_resamples,
    )
    undrawn = OF_REFERENCE if "r" in still else ()
    # Of two maps that share what is odd about the examples, one alone would say too little.
    undrawn = (*undrawn, *OF_REFERENCE_AND_BASE) if still else undrawn
    return found | dict.fromkeys(undrawn)


def mean_of(scores: HeadMap | PerExample) -> HeadMap:
    """The mean over the kept examples; a mean stays as it is."""
    return mean_scores(scores) if scores.ndim == 3 else scores


def _same_kept(one: PerExample, other: HeadMap | PerExample) -> bool:
    if one.shape != other.shape:
        return False
    return np.array_equal(kept_examples(one), kept_examples(other))
