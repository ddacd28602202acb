"""Scores of a run, its reference and the untuned model over the same resampled examples.

As `sce.stats.comparison_intervals` draws them. Runs of a task share their examples, and with them
the resamples of the reference and of the untuned model, which are therefore made once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sce.analysis.groups import Member
from sce.analysis.references import Target
from sce.measures import beside
from sce.records import HeadScores
from sce.stats.intervals import Drawn
from sce.stats.resampling import kept_examples, resampled_maps
from sce.stats.stacks import CompareWith, SharesOver, Values

NUM_RESAMPLES = 200
"""Of the examples, where bounds are drawn anew."""
NUM_OVER_K = 100
"""Of these for the curves over k, whose sets must be sorted for."""
SEED = 0


def resampled(rows: np.ndarray) -> np.ndarray | None:
    """Mean maps of the resamples of [examples, layers, heads]; None where nothing can be drawn."""
    return resampled_maps(rows, SEED, NUM_RESAMPLES)


@dataclass(frozen=True)
class Resampled:
    """S of every resample, R and B of every one or as they are: [resamples or 1, layers, heads]."""

    s: np.ndarray
    r: np.ndarray
    b: np.ndarray | None
    undrawn: tuple[str, ...]
    """Measures of which nothing, or not all, was drawn: they have no bounds."""
    key: Hashable
    """The same for runs that share R and B."""


class Resampler:
    """Draws the runs of one task."""

    def __init__(self, before: Member | None, untuned: HeadScores | None) -> None:
        """Set the untuned model.

        Args:
            before: as a run, where there is one.
            untuned: its scores, of that run or of a reference's file.
        """
        self.before, self.untuned = before, untuned
        self._maps: dict[Hashable, np.ndarray] = {}
        self._rows: dict[Hashable, np.ndarray | None] = {}
        self._over: dict[Hashable, SharesOver] = {}
        self._compare: dict[Hashable, CompareWith] = {}

    def of(
        self, member: Member, step: int, target: Target, base: HeadScores | None
    ) -> Resampled | None:
        """A step of a run; None where its single examples are not at hand.

        Args:
            member: the run.
            step: of its scores.
            target: R.
            base: B: the run's own step 0, another untuned model's scores, or None.
        """
        rows = member.files.per_example(step)
        s = None if rows is None else resampled(rows)
        if rows is None or s is None:
            return None
        kept = kept_examples(rows)
        own_r = target.examples(member.data_sha256, len(rows))
        b_name, own_b = self._base(member, base, len(rows))
        sides = {"r": (target.key, own_r), "b": (b_name, own_b)}
        maps: dict[str, np.ndarray | None] = {}
        still: dict[str, np.ndarray | None] = {}
        names: list[Hashable] = [kept.tobytes()]
        for side, (name, own) in sides.items():
            if own is None:
                maps[side] = still[side] = None
            elif own.ndim == 3 and np.array_equal(kept_examples(own), kept):
                maps[side] = self._drawn((side, name, kept.tobytes()), own)
                names.append(name)
            else:
                mean = own if own.ndim == 2 else np.nanmean(own, axis=0)
                maps[side], still[side] = mean[None], mean
                names.append((name, "mean"))
        undrawn = Drawn(rows, ("s",), still).undrawn if still else ()
        r = maps["r"]
        assert r is not None
        return Resampled(s, r, maps["b"], undrawn, tuple(names))

    def compared(self, drawn: Resampled, tau: float, k: int) -> Values:
        """Every measure in every resample."""
        key = (tau, k, drawn.key)
        if key not in self._compare:
            self._compare[key] = CompareWith(drawn.r, drawn.b, tau=tau, k=k)
        return self._compare[key](drawn.s)

    def over(self, drawn: Resampled, at: Sequence[float], by: str) -> dict[str, np.ndarray]:
        """Shares at every threshold ("tau") or size ("k") in every resample."""
        count = NUM_OVER_K if by == "k" else NUM_RESAMPLES
        key = (by, tuple(at), drawn.key)
        if key not in self._over:
            b = None if drawn.b is None else drawn.b[:count]
            self._over[key] = SharesOver(drawn.r[:count], b, at, by=by)
        return self._over[key](drawn.s[:count])

    def _base(
        self, member: Member, base: HeadScores | None, num_examples: int
    ) -> tuple[Hashable, np.ndarray | None]:
        """B by example where that is of the run's own examples, else its mean; and its name."""
        if base is None:
            return None, None
        if base is not member.base:
            return "given", beside(base, member.data_sha256, num_examples)
        owner = member
        before = self.before
        if before is not None and np.array_equal(before.last.scores, base.scores):
            owner = before  # the same model on the same examples: its resamples serve all runs
        if owner.name not in self._rows:
            self._rows[owner.name] = owner.files.per_example(owner.steps[0])
        own = self._rows[owner.name]
        usable = own is not None and len(own) == num_examples
        return ("base", owner.name), own if usable else base.scores

    def _drawn(self, key: Hashable, rows: np.ndarray) -> np.ndarray:
        if key not in self._maps:
            found = resampled(rows)
            assert found is not None
            self._maps[key] = found
        return self._maps[key]
