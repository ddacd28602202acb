"""What was found of single runs and settings: the parts that `sce.analysis.findings` is made of.

An `Estimate` is {"value", "low", "high", "n"}: 95% bounds, None where the spread cannot be known,
over n units that its place here names. A head is (layer, query head), zero-based; a map of scores
is [layers, heads]. A quantity that does not exist is None, never 0 or NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sce.stats import Estimate

KINDS = ("real", "untuned", "synthetic", "limited", "mixture")
"""Of a run: what it was tuned on. `untuned` is the model before any tuning, from step 0."""

MEASURES = (
    *("recall", "recall_learned", "precision", "jaccard", "recall_at_k"),
    *("cosine", "cosine_learned", "spearman"),
)
"""Of heads beside a reference; `sce.stats.Comparison` defines them. Each has a null here."""

PREDICTORS = (*MEASURES, "answer_nll", "greedy_recall", "greedy_cosine")
"""What is correlated with F1. `answer_nll` is validation loss, nats a token: lower is better."""

ACCURACY = ("f1", "exact_match", "substring_exact_match")

LABELS = {
    "recall": "recall of the reference's heads",
    "recall_learned": "recall learned (not in the untuned model)",
    "precision": "precision",
    "jaccard": "Jaccard",
    "recall_at_k": "recall of the k best heads",
    "cosine": "cosine with the reference",
    "cosine_learned": "cosine of what was learned",
    "spearman": "Spearman with the reference",
    "answer_nll": "validation loss (nats a token)",
    "greedy_recall": "recall, greedy mode",
    "greedy_cosine": "cosine, greedy mode",
    "f1": "F1",
    "exact_match": "exact match",
    "substring_exact_match": "substring exact match",
}
"""Measure -> what a figure or a table calls it."""

Heads = Sequence[tuple[int, int]]
Map = np.ndarray
"""Scores, float64 [layers, heads]; rounded to 6 digits in JSON."""
Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Skipped:
    """Something that was left out of everything, and why; one a file."""

    file: str
    """As the user would type it."""
    run: str | None
    reason: str


@dataclass(frozen=True)
class Checkpoint:
    """One validation of a run."""

    step: int
    measures: Mapping[str, Estimate]
    """MEASURES and, beside them, recall_null, recall_null_layer, recall_base, cosine_base,
    num_heads, num_reference_heads; greedy_* where recorded (against the run's own reference): n is
    the reference examples. f1, exact_match, answer_nll and, where it is recorded,
    substring_exact_match: n is the validation examples."""
    source: str
    """Of the bounds of head measures: "records", "scores" (drawn anew), "none"."""


@dataclass(frozen=True)
class Curve:
    """Overlap with the reference over a grid; by measure, one value for each of `at`."""

    at: Sequence[float]
    """Thresholds tau, or set sizes k; rising."""
    measures: Mapping[str, Numbers]
    """recall, recall_learned, precision, jaccard, what chance makes of each (recall_null_layer and
    so on: `sce.stats.nulls.layer_nulls_over`), recall_null, recall_base, num_heads,
    num_reference_heads."""


@dataclass(frozen=True)
class Run:
    """A tuned model, or (`kind` untuned) the model before tuning."""

    name: str
    folder: str
    task: str
    setting: str
    """Runs that differ in seed alone share it."""
    kind: str
    seed: int | None
    concept: str | None
    context: str | None
    mix: str | None
    num_train: int | None
    """Training examples, where records say so."""
    is_point: bool
    """Whether it counts in settings, correlations and figures; a real run that took part in the
    reference of its task does not."""
    in_reference: bool
    compared_with: str | None
    """Which reference its measures are against, in words; None: it has none."""
    checkpoints: Sequence[Checkpoint]
    """Rising in step; the last one is what settings and correlations are of."""
    scores: Map
    """Of the last checkpoint."""
    heads: Heads
    """S at tau, of the last checkpoint."""
    gained: Heads
    """S without B: heads the untuned model does not have."""
    lost: Heads
    """B without S."""
    over_tau: Curve | None
    over_k: Curve | None
    warnings: Sequence[str] = ()

    @property
    def last(self) -> Checkpoint:
        """The checkpoint that counts."""
        return self.checkpoints[-1]

    def curve(self, by: str) -> Curve | None:
        """Over "tau" or over "k"."""
        return self.over_tau if by == "tau" else self.over_k


@dataclass(frozen=True)
class Setting:
    """All seeds of one setting: means over its runs."""

    setting: str
    kind: str
    task: str
    runs: Sequence[str]
    """Names, in the order of `seeds`."""
    seeds: Sequence[int | None]
    measures: Mapping[str, Estimate]
    """Last checkpoints: value is the mean over seeds, low and high the means of the seeds' bounds
    (the seeds share their examples, so this is the interval if they err alike, and wider than need
    be if not), n the number of seeds."""
    by_seed: Mapping[str, Numbers]
    """The same measures, a value a run."""
    nulls: Mapping[str, float | None]
    """MEASURES -> what as many heads (or the same scores), dealt at random within each layer, would
    give; the mean over seeds."""
    curve: Sequence[Checkpoint]
    """Means over seeds at each step that all seeds have; n is the number of seeds."""
    scores: Map
    """Mean over seeds, last checkpoints."""
    gained: Mapping[str, int]
    """"layer-head" -> in how many seeds the head is gained."""
    lost: Mapping[str, int]


@dataclass(frozen=True)
class HeadSetOf:
    """A set that others are compared with: the reference's, or the untuned model's."""

    source: str
    """File, or in words how it was made."""
    members: Sequence[str]
    """Names of the runs in it, or hashes of adapters where these are not at hand."""
    scores: Map
    heads: Heads
    """Above tau."""
    num_examples: int


@dataclass(frozen=True)
class LayerShares:
    """In which layers the heads above tau are; of one setting, of the reference, of the untuned."""

    name: str
    kind: str
    """A KIND, or "reference"."""
    shares: Sequence[Estimate]
    """A layer each: its share of the set's heads, mean over seeds; n is the number of seeds, the
    bounds are over examples (means of the seeds'), None where single examples are not at hand."""
    num_heads: float
    """Size of the set, mean over seeds."""


@dataclass(frozen=True)
class Overlap:
    """Every setting as the run (rows) against every other as the reference (columns).

    Means over the pairs of a run of one and a run of the other. On the diagonal: different seeds of
    one setting; None for one seed. Names may include "reference" and "untuned". A cell is None also
    where one took part in the other.
    """

    measure: str
    """recall, jaccard or cosine; the last two are symmetric."""
    names: Sequence[str]
    kinds: Sequence[str]
    cells: Sequence[Sequence[Estimate]]
    """[run][reference]; n is the number of pairs, bounds are over examples."""


@dataclass(frozen=True)
class Pair:
    """Two settings, and the heads above tau in the mean scores of either's seeds, beside R.

    Not measured on a mixture: on the heads of two models, each tuned on one kind of data alone.
    """

    first: str
    second: str
    recall: float | None
    recall_learned: float | None
    precision: float | None
    recall_null_layer: float | None
    """Recall of as many heads dealt at random within each layer: a larger set recalls more."""
    num_heads: int
    mean_recall: float | None
    """Of the two by themselves."""
    mean_cosine: float | None


@dataclass(frozen=True)
class Baseline:
    """Accuracy of the untuned or the real-tuned model under a view of the documents."""

    model: str
    """untuned or tuned, as sce.intervene says it."""
    view: str
    """full, no_documents, gold_only or no_evidence."""
    f1: Estimate
    """n: examples."""


@dataclass(frozen=True)
class Effect:
    """A row of an intervention: a set of heads taken out, or patched in."""

    direction: str | None
    """Of patching: forward (source into target) or reverse; None for knockout."""
    name: str
    """Of the set; for random ones, the set they stand beside."""
    kind: str
    """none, heads, layer_matched, uniform, source (as sce.intervene writes them)."""
    k: int
    draw: int | None
    f1: Estimate
    change: Estimate
    """F1 less that without the intervention, on the same examples."""
    p_value: float | None
    share: Estimate
    """Patching: share of the gap to the source that was closed; read `gap` first."""
    gap: Estimate


@dataclass(frozen=True)
class Intervention:
    """One results.json of python -m sce.intervene."""

    file: str
    method: str
    """knockout or patch."""
    task: str
    setting: str | None
    """Of the patched run, where a study says so."""
    kind: str | None
    seed: int | None
    effects: Sequence[Effect]
    """n: examples. Every random draw is a row of its own."""
    curves: Sequence[Mapping[str, Any]]
    """Knockout: F1 over k, draws averaged, as sce.intervene wrote it: name, kind, n, and lists k,
    f1, f1_low, f1_high; k = 0 is the effect of kind none."""
    worse_than_random: Sequence[Mapping[str, Any]]
    """Patching: sets that do worse than their random controls, as sce.intervene wrote them, with
    their direction."""
    counter_examples: Sequence[Mapping[str, Any]]
    """Patching: a set's examples that got worse although the source does better: name, kind, draw,
    direction, num, n."""
