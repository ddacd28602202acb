"""Series of points and maps of heads: which are degenerate, and how two of them go together.

The bottom of this package. A series holds one value a point (an example, a checkpoint, a run); a
None in it is a value that does not exist, and is NaN from here on. Labels say which points belong
together: the run, the setting or the task of each.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.stats import rankdata

# The underscore leaves shapes unbound: a mismatch is a ValueError from the functions below.
HeadSet = Bool[np.ndarray, "_layers _heads"]
HeadMap = Float[np.ndarray, "_layers _heads"]
Series = Sequence[float | int | None] | Real[np.ndarray, " _points"]
Grid = Sequence[float | int] | Real[np.ndarray, " _values"]
Labels = Sequence[Hashable] | np.ndarray

CONSTANT_SPREAD = 1e-12  # relative to the largest: values no further apart differ by rounding


def cosine(a: Real[np.ndarray, "..."], b: Real[np.ndarray, "..."]) -> float | None:
    """Cosine of the angle between two arrays of one shape, flattened; in -1..1, symmetric.

    None if either has zero norm or a value that is not finite. As in Zhao, Yin and Durrett.
    """
    require_same_shape(a, b)
    if not all(np.isfinite(values).all() and values.any() for values in (a, b)):
        return None
    u, v = _scaled(a), _scaled(b)
    return float(np.clip(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)), -1, 1))


def spearman(x: Series, y: Series) -> float | None:
    """Pearson's correlation of the ranks, ties averaged; in -1..1, None where `pearson` is None."""
    pair = _varying_pair(x, y)
    return None if pair is None else pearson(rankdata(pair[0]), rankdata(pair[1]))


def pearson(x: Series, y: Series) -> float | None:
    """Pearson's correlation of two series of one length; in -1..1.

    None for fewer than 3 points, for a series that is constant up to rounding, and for a value that
    is None or not finite: leave such points out of both series before the call.
    """
    pair = _varying_pair(x, y)
    if pair is None:
        return None
    a, b = map(_scaled, pair)
    return cosine(a - a.mean(), b - b.mean())


def first_differences(series: Series) -> Float[np.ndarray, " _steps"]:
    """What each point adds to the one before, NaN beside a None or NaN: n points give n - 1."""
    values = vector(series)
    return subtract(values[1:], values[:-1])


def require_same_shape(*arrays: np.ndarray) -> None:
    """Raise ValueError unless all arrays have one shape, even where they would broadcast."""
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"shapes differ: {[array.shape for array in arrays]}")


def vector(series: Series) -> Float[np.ndarray, " _points"]:
    """The series in float64, None as NaN."""
    return np.asarray(series, dtype=np.float64)


def subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference, silent about infinities: what is not finite is refused later."""
    with np.errstate(invalid="ignore", over="ignore"):
        return a - b


def together(*series: Series) -> tuple[Float[np.ndarray, "_series _points"], np.ndarray]:
    """The series as rows without the points where any is None or not finite, and who was kept.

    Raises ValueError if their lengths differ.
    """
    rows = [vector(values) for values in series]
    require_same_shape(*rows)
    stacked = np.stack(rows)
    kept = np.asarray(np.isfinite(stacked).all(axis=0))
    return stacked[:, kept], kept


def labels_of(labels: Labels, kept: Bool[np.ndarray, " _points"]) -> list[Hashable]:
    """The labels of the kept points. Raises ValueError unless there is one for every point."""
    if len(labels) != len(kept):
        raise ValueError(f"shapes differ: {len(labels)} labels for {len(kept)} points")
    return [label for label, keep in zip(labels, kept, strict=True) if keep]


def codes(labels: Labels) -> Int[np.ndarray, " _points"]:
    """0 for the first label and all that equal it, 1 for the next other one, and so on."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], dtype=np.int64)


def without_means(
    values: Float[np.ndarray, " _points"], label_codes: Int[np.ndarray, " _points"]
) -> Float[np.ndarray, " _points"]:
    """Each value less the mean of its label, to 12 digits of the largest value.

    So what differs by rounding alone is equal, and what only rounding has left is 0.
    """
    scale = np.abs(values).max(initial=0.0)
    if scale == 0:
        return values
    parts = values / scale
    means = np.bincount(label_codes, weights=parts) / np.maximum(np.bincount(label_codes), 1)
    return (parts - means[label_codes]).round(12) * scale


def rounded(values: Float[np.ndarray, " _points"]) -> Float[np.ndarray, " _points"]:
    """To 12 digits of the largest value, so that what differs by rounding alone has one rank."""
    scale = np.abs(values).max(initial=0.0)
    return values if scale == 0 else (values / scale).round(12) * scale


def _scaled(values: np.ndarray) -> np.ndarray:
    """Flat float64 values over the largest magnitude, which is not 0: no square overflows."""
    flat = values.ravel().astype(np.float64)
    return flat / np.abs(flat).max()


def _varying_pair(x: Series, y: Series) -> tuple[np.ndarray, np.ndarray] | None:
    """Both series, or None where they have no correlation."""
    pair = vector(x), vector(y)
    require_same_shape(*pair)
    for values in pair:
        usable = len(values) >= 3 and np.isfinite(values).all() and values.any()
        if not usable or np.ptp(_scaled(values)) <= CONSTANT_SPREAD:
            return None
    return pair
