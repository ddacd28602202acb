"""What chance would give: scores dealt at random to the heads of their layer."""

import numpy as np
from scipy.stats import rankdata

from sce.stats.series import Grid, HeadMap
from sce.stats.stacks import SHARES, Sets, Values, sets_over, share


def layer_nulls(
    scores: HeadMap, reference: HeadMap, base: HeadMap | None, *, tau: float, k: int
) -> dict[str, float | None]:
    """What each measure would be if S's scores were dealt at random to the heads of their layer.

    Expectations, exact but for the Jaccard, which is that of the expected overlap. For
    `recall_learned` the heads that S has and the untuned model, B, has not are dealt to those that
    B has not; for `cosine_learned` what changed against B. None where the measure is.
    """
    at_k = layer_nulls_over(scores, reference, None, [k], by="k")
    shares = layer_nulls_over(scores, reference, base, [tau], by="tau")
    shares["recall_at_k"] = at_k["recall"]
    ranks = [rankdata(m).reshape(m.shape) for m in (scores, reference)]
    return {
        **dict.fromkeys(SHARES),
        **{name: column[0] for name, column in shares.items()},
        "cosine": _cosine_dealt(scores, reference),
        "cosine_learned": None if base is None else _cosine_dealt(scores - base, reference - base),
        "spearman": _cosine_dealt(*(m - m.mean() for m in ranks)),
    }


def layer_nulls_over(
    scores: HeadMap, reference: HeadMap, base: HeadMap | None, at: Grid, *, by: str
) -> dict[str, list[float | None]]:
    """`layer_nulls` of SHARES, `recall_learned` where B is known, at every tau or every k.

    Args:
        scores: S's.
        reference: R's.
        base: B's, or None.
        at: thresholds, or sizes.
        by: "tau" or "k".
    """

    def sets(heads: HeadMap) -> Sets:
        return np.concatenate([*sets_over(heads[None], at, by)])

    b = None if base is None else sets(base)
    dealt = _shares_dealt(sets(scores), sets(reference), b)
    return {name: [_number(value) for value in column] for name, column in dealt.items()}


def _shares_dealt(s: Sets, r: Sets, b: Sets | None) -> Values:
    """The expected SHARES of sets dealt at random within layers; NaN for a share of nothing."""
    sizes_s, sizes_r = s.sum(axis=2), r.sum(axis=2)
    num_s, num_r = sizes_s.sum(axis=1), sizes_r.sum(axis=1)
    overlap = (sizes_s * sizes_r).sum(axis=1) / s.shape[2]
    found = {
        "recall": share(overlap, num_r),
        "precision": share(overlap, num_s),
        "jaccard": share(overlap, num_s + num_r - overlap),
    }
    if b is not None:
        free, learned = np.maximum((~b).sum(axis=2), 1), (r & ~b).sum(axis=2)
        new = ((s & ~b).sum(axis=2) * learned / free).sum(axis=1)
        found["recall_learned"] = share(new, learned.sum(axis=1))
    return found


def _cosine_dealt(a: HeadMap, b: HeadMap) -> float | None:
    """The expected cosine with a's values dealt anew within each layer."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not np.isfinite(norms) or norms == 0:
        return None
    return float(a.sum(axis=1) @ b.sum(axis=1)) / a.shape[1] / norms


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
