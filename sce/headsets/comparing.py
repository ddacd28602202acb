"""How head sets compare: each as the run, S, against every other as its reference, R.

Intervals resample the run's examples, and with them what was scored on the same ones, as a training
run's records do.
A set that is compared keeps its examples' scores and its provenance; what they forbid is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations, permutations
from typing import Any

from sce.errors import InputError
from sce.measures import beside
from sce.records import HeadScores, origin_differences
from sce.stats import (
    Comparison,
    Curves,
    HeadMap,
    bootstrap_many,
    compare,
    comparison_intervals,
    drawn_together,
    head_set,
    num_kept,
    partial_given_layer,
    permutation_p_value,
    recall_curves,
    with_bands,
)

SEED = 0
"""Of resamples and permutations."""
NUM_RESAMPLES = 2000
"""Of the examples, for the intervals."""
MEASURES = tuple(field.name for field in fields(Comparison))
"""What has an interval where the run's examples are at hand."""
GIVEN_LAYER = "partial_given_layer"

_IDENTITIES = {
    "weights_sha256": "different models, whose heads have nothing in common",
    "data_sha256": "different examples",
    "prompt_sha256": "different prompts",
}


@dataclass(frozen=True)
class Member:
    """One of the sets that are compared: the letter that stands for it, its file, its scores."""

    letter: str
    name: str
    scores: HeadScores

    @property
    def n(self) -> int | None:
        """Examples behind the scores; None where an imported file does not say."""
        per_example = self.scores.per_example
        return (self.scores.num_examples if per_example is None else num_kept(per_example)) or None


@dataclass(frozen=True)
class Pair:
    """One set as the run beside another as its reference."""

    run: Member
    reference: Member
    comparison: Comparison
    partial_given_layer: float | None
    """Rank correlation of the scores of a layer's heads, as `sce.stats.partial_given_layer`."""
    recall_p_value: float | None
    """How often as many random heads, the layers kept, recall as much."""
    recall_learned_p_value: float | None
    """The same of heads that the untuned model lacks, among such heads."""
    intervals: Mapping[str, tuple[float, float] | None]
    """Measure -> 95% interval over the run's examples; None or absent where there is none."""
    curves: Curves
    """With bands over the run's examples where these are at hand."""

    def row(self) -> dict[str, Any]:
        """All but the curves, flat, as a row of a table."""
        low_high = {
            f"{name}_{end}": interval[i] if (interval := self.intervals.get(name)) else None
            for name in (*MEASURES, GIVEN_LAYER)
            for i, end in enumerate(("low", "high"))
        }
        return {
            "run": self.run.name,
            "reference": self.reference.name,
            "num_examples": self.run.n,
            "num_reference_examples": self.reference.n,
            **asdict(self.comparison),
            "partial_given_layer": self.partial_given_layer,
            "recall_p_value": self.recall_p_value,
            "recall_learned_p_value": self.recall_learned_p_value,
            **low_high,
        }


@dataclass(frozen=True)
class Compared:
    """Every set against every other, both ways, and what must be said beside it."""

    members: Sequence[Member]
    pairs: Sequence[Pair]
    warnings: Sequence[str]
    tau: float
    k: int
    base: str | None
    """File of the untuned model's scores; None: each reference's own, where it has them."""


def compare_all(
    sets: Mapping[str, HeadScores],
    base: tuple[str, HeadScores] | None = None,
    *,
    tau: float,
    k: int,
) -> Compared:
    """Compare every set with every other, in both directions.

    Args:
        sets: name (the file) -> scores, at least two.
        base: name and scores of the untuned model; None takes each reference's `base_scores`.
        tau: a head is in a set if its score is above it.
        k: size of the sets of recall_at_k.

    Raises:
        InputError: two of them cannot be compared; says which, and why.
    """
    warnings = require_comparable({**sets, **dict([base] if base else [])})
    members = [Member(letter(i), *item) for i, item in enumerate(sets.items())]
    untuned = None if base is None else base[1]
    pairs = [_pair(run, reference, untuned, tau, k) for run, reference in permutations(members, 2)]
    return Compared(members, pairs, warnings, tau, k, None if base is None else base[0])


def letter(index: int) -> str:
    """A for the first set, Z for the 26th, then AA, AB and so on."""
    above, own = divmod(index, 26)
    return (letter(above - 1) if above else "") + chr(ord("A") + own)


def _pair(run: Member, reference: Member, untuned: HeadScores | None, tau: float, k: int) -> Pair:
    scores, target = run.scores.scores, reference.scores.scores
    base = reference.scores.base_scores if untuned is None else untuned.scores
    rows, intervals = run.scores.per_example, {}
    curves = recall_curves(scores, target, base, n=run.n)
    if rows is not None:
        data = run.scores.provenance.get("data_sha256")
        drawn = (
            rows,
            beside(reference.scores, data, len(rows)),
            base if untuned is None else beside(untuned, data, len(rows)),
        )
        intervals = comparison_intervals(
            *drawn, tau=tau, k=k, seed=SEED, num_resamples=NUM_RESAMPLES
        )
        intervals |= _given_layer(drawn)
        curves = with_bands(curves, *drawn, seed=SEED)
    sets = head_set(scores, tau), head_set(target, tau)
    before = None if base is None else head_set(base, tau)
    return Pair(
        run=run,
        reference=reference,
        comparison=compare(scores, target, base, tau=tau, k=k),
        partial_given_layer=partial_given_layer(scores, target),
        recall_p_value=permutation_p_value(*sets, seed=SEED, layer_matched=True),
        recall_learned_p_value=None
        if before is None
        else permutation_p_value(*sets, before, seed=SEED, layer_matched=True),
        intervals=intervals,
        curves=curves,
    )


def _given_layer(drawn: tuple[Any, Any, Any]) -> dict[str, tuple[float, float] | None]:
    """Interval of `partial_given_layer`, by the examples that run and reference share."""
    together = drawn_together(*drawn)

    def partial(joined: HeadMap) -> dict[str, float | None]:
        maps = together.split(joined)
        s, r = maps["s"], maps["r"]
        assert s is not None and r is not None
        return {GIVEN_LAYER: partial_given_layer(s, r)}

    return bootstrap_many(
        together.joined, partial, centred=(GIVEN_LAYER,), seed=SEED, num_resamples=NUM_RESAMPLES
    )


def require_comparable(sets: Mapping[str, HeadScores]) -> list[str]:
    """Warnings about sets that may be compared.

    Weights, data and prompt of an imported set are unknown: it can be compared with any set of its
    shape, scorer, mode and match, and a warning says so.

    Raises:
        InputError: two differ in scorer, mode, match, shape, weights, data or prompt, or one is an
            average that the other took part in.
    """
    for (name, one), (other_name, other) in combinations(sets.items(), 2):
        refused = f"{name} and {other_name} cannot be compared"
        for what in ("scorer", "mode", "match", "shape"):
            values = getattr(one, what), getattr(other, what)
            if values[0] != values[1]:
                raise InputError(f"{refused}: {what} {values[0]} and {values[1]}")
        for key, what in _IDENTITIES.items():
            hashes = one.provenance.get(key), other.provenance.get(key)
            if all(hashes) and hashes[0] != hashes[1]:
                shown = " and ".join(str(value)[:12] for value in hashes)
                raise InputError(f"{refused}: they are of {what} ({key} {shown})")
        if _share_a_model(one, other):
            raise InputError(
                f"{refused}: one is an average that the other took part in, and would be compared "
                "with itself"
            )
    return _warnings(sets)


def _share_a_model(one: HeadScores, other: HeadScores) -> bool:
    if not any("members" in scores.provenance for scores in (one, other)):
        return False
    models = []
    for origin in (one.provenance, other.provenance):
        parts = origin.get("members") or [origin, origin.get("adapter") or {}]
        names = ("adapter_sha256", "train_sha256", "file_sha256")
        models.append({part[name] for part in parts for name in names if part.get(name)})
    return bool(models[0] & models[1])


def _warnings(sets: Mapping[str, HeadScores]) -> list[str]:
    warnings = []
    unknown = [name for name, s in sets.items() if not s.provenance.get("weights_sha256")]
    if unknown:
        warnings.append(
            f"the weights behind {', '.join(unknown)} are unknown (imported, or scored in memory): "
            "whether these are heads of one model, on the same examples, is for you to know"
        )
    # Of imported sets nothing is known. What equals the first is equal among itself too.
    known = [item for item in sets.items() if "imported_from" not in item[1].provenance]
    for name, scores in known[1:]:
        first, origin = known[0][0], known[0][1].provenance
        if differs := origin_differences(origin, scores.provenance):
            warnings.append(f"{first} and {name} were scored with different {', '.join(differs)}")
    return warnings
