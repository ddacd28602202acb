"""How sure a comparison of two maps of head scores is: its measures over resampled examples.

The run, the reference and the untuned model scored on the same examples share what is odd about
these, so they are drawn together. What was scored on others, or is known by its mean alone, stays
as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Real

from sce.stats.resampling import PerExample, kept_examples, mean_scores, resampled_maps
from sce.stats.series import HeadMap, require_same_shape
from sce.stats.sets import Comparison
from sce.stats.stacks import CompareWith, Stack, Values, bounds

OF_REFERENCE = ("num_reference_heads",)
OF_REFERENCE_AND_BASE = ("recall_base", "cosine_base")

Intervals = dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Drawn:
    """Scores of the run S, the reference R and the untuned model B: what is drawn, what stays."""

    joined: PerExample
    """What is drawn, side by side: [examples, layers, heads of each of `drawn`]."""
    drawn: tuple[str, ...]
    """Of "s", "r" and "b", those in `joined`, in this order."""
    still: Mapping[str, HeadMap | None]
    """The others: their mean, or None for a B that is not known."""

    @property
    def undrawn(self) -> tuple[str, ...]:
        """Measures of which nothing, or of two that share what is odd but one, was drawn."""
        undrawn = OF_REFERENCE if "r" in self.still else ()
        # Of two maps that share what is odd about the examples, one alone would say too little.
        return (*undrawn, *OF_REFERENCE_AND_BASE) if self.still else undrawn

    def split(
        self, means: Real[np.ndarray, "... _layers _heads"]
    ) -> dict[str, Real[np.ndarray, "... _layers _heads"] | None]:
        """The maps by name, "s", "r" and "b", from means of `joined` of one or more resamples."""
        parts = np.split(means, len(self.drawn), axis=-1)
        return {**self.still, **dict(zip(self.drawn, parts, strict=True))}


def drawn_together(
    per_example: PerExample, reference: HeadMap | PerExample, base: HeadMap | PerExample | None
) -> Drawn:
    """What is drawn with the run's examples: all that was scored on them, by example.

    Raises ValueError if the maps' shapes differ.
    """
    parts, drawn, still = [per_example], ["s"], dict[str, HeadMap | None]()
    for name, scores in (("r", reference), ("b", base)):
        if scores is not None and _same_kept(per_example, scores):
            parts.append(scores)
            drawn.append(name)
        else:
            still[name] = None if scores is None else mean_of(scores)
    stay = [mean for mean in still.values() if mean is not None]
    require_same_shape(np.zeros(per_example.shape[1:]), *stay)
    return Drawn(np.concatenate(parts, axis=2), tuple(drawn), still)


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
        nothing of a measure was drawn, it exists in fewer than half of the resamples, or there are
        none: of fewer than 2 kept examples, or with a score that is not finite.

    Raises:
        ValueError: shapes differ.
    """
    drawn = drawn_together(per_example, reference, base)
    none: Intervals = dict.fromkeys(field.name for field in fields(Comparison))
    means = resampled_maps(drawn.joined, seed, num_resamples)
    if means is None:
        return none

    def compared(joined: Stack) -> Values:
        maps = {
            name: each if each is None or each.ndim == 3 else each[None]
            for name, each in drawn.split(joined).items()
        }
        s, r = maps["s"], maps["r"]
        assert s is not None and r is not None
        return CompareWith(r, maps["b"], tau=tau, k=k)(s)

    found = bounds(compared(means), compared(mean_scores(drawn.joined)[None]))
    return none | found | dict.fromkeys(drawn.undrawn)


def mean_of(scores: HeadMap | PerExample) -> HeadMap:
    """The mean over the kept examples; a mean stays as it is."""
    return mean_scores(scores) if scores.ndim == 3 else scores


def _same_kept(one: PerExample, other: HeadMap | PerExample) -> bool:
    if one.shape != other.shape:
        return False
    return np.array_equal(kept_examples(one), kept_examples(other))
