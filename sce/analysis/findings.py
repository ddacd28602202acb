"""What an analysis found: the one interface between the numbers and whatever shows them.

`Findings.to_json()` is plain data, written to findings.json: Findings > Group (runs that may be
compared) > Task > Run, Setting and the rest of `sce.analysis.parts`. Numbers of heads, steps and
examples are whole; shares lie in 0..1, correlations and cosines in -1..1. A quantity that does not
exist is None (null), never 0 or NaN.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sce.analysis.as_json import as_json
from sce.analysis.parts import (
    ACCURACY,
    KINDS,
    LABELS,
    MEASURES,
    PREDICTORS,
    Baseline,
    Checkpoint,
    Curve,
    Effect,
    HeadSetOf,
    Intervention,
    LayerShares,
    Numbers,
    Overlap,
    Pair,
    Run,
    Setting,
    Skipped,
)
from sce.outputs import whole
from sce.stats import Correlation, Estimate
from sce.stats.scrutiny import ByFamily

__all__ = [
    "ACCURACY",
    "KINDS",
    "LABELS",
    "MEASURES",
    "NOTES",
    "PREDICTORS",
    "SCHEMA",
    "Baseline",
    "Checkpoint",
    "Curve",
    "Effect",
    "Findings",
    "Group",
    "HeadSetOf",
    "Intervention",
    "LayerShares",
    "Numbers",
    "Overlap",
    "Pair",
    "Predictor",
    "Question",
    "Rho",
    "RhoOver",
    "Run",
    "Setting",
    "Skipped",
    "Task",
]

SCHEMA = "sce.findings/2"
NOTHING = Estimate(None, None, None, 0)
"""A quantity that does not exist."""


@dataclass(frozen=True)
class Task:
    """All runs of a group that do one task, beside that task's reference."""

    task: str
    tau: float
    k: int
    num_layers: int
    num_heads: int
    """Query heads a layer."""
    reference: HeadSetOf | None
    """The whole reference; a real run that took part in it is compared with the others alone."""
    untuned: HeadSetOf | None
    ceiling: Mapping[str, Estimate]
    """Measures (and f1) of real runs, each against the reference or, where it took part in that,
    against the mean of the other real ones: means over the runs, n how many, low and high the means
    of their bounds over examples. Without such runs what the reference's file says of its seeds, n
    then the number of its pairs. Empty: none."""
    nulls: Mapping[str, Estimate]
    """MEASURES -> mean of `Setting.nulls` over synthetic settings, low and high their smallest and
    largest, n the settings. A line to draw in every figure of these."""
    runs: Sequence[Run]
    settings: Sequence[Setting]
    """Of runs that are points; the untuned model is one of them."""
    layers: Sequence[LayerShares]
    overlaps: Sequence[Overlap]
    pairs: Sequence[Pair] = ()
    """Of settings; what the two together recall most first."""
    baselines: Sequence[Baseline] = ()
    interventions: Sequence[Intervention] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Rho:
    """How a measure goes with F1 over settings (means over their seeds)."""

    measure: str
    task: str | None
    """None: pooled over the tasks of the group."""
    without_task_means: bool
    """Pooled, each task's mean taken from both: what is left is not one of tasks. Without it the p
    is still by exchange within tasks."""
    points: str
    """"synthetic" (synthetic, limited and mixture settings) or "all" (real and untuned too)."""
    found: Correlation
    """`spearman` is rho; its bounds are of a bootstrap over settings, seeds inside; p by exchange
    of settings; n the settings; `smallest_detectable` the smallest |rho| that these settings could
    have shown at p < 0.05, two-sided (None: none could)."""
    num_runs: int
    p_holm: float | None = None
    """p of one measure among all that are correlated with F1 here, after Holm."""
    families: ByFamily | None = None
    """Between and within families of settings (`sce.analysis.accuracy.family`)."""
    given_loss: Estimate = NOTHING
    """Partial rho, given validation loss: what the measure says beyond it. None pooled."""
    reliability: Estimate = NOTHING
    """Of the settings' means over their seeds. None pooled, and for too few settings with two."""

    @property
    def is_told(self) -> bool:
        """Whether it is the one to show: pooled, that in which tasks' levels have no part."""
        return self.without_task_means == (self.task is None)


@dataclass(frozen=True)
class RhoOver:
    """Rho with F1 as a function of the threshold, or of the sets' size, by measure."""

    task: str | None
    points: str
    measure: str
    """recall, recall_learned, precision or jaccard."""
    by: str
    """"tau" or "k"."""
    at: Sequence[float]
    """Thresholds or sizes, rising; what follows has one value for each."""
    rho: Numbers
    low: Numbers
    high: Numbers
    n: Sequence[int]
    """Settings with a value."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest rho of all that exist."""
        known = [rho for rho in self.rho if rho is not None]
        return (min(known), max(known)) if known else None


@dataclass(frozen=True)
class Question:
    """Does one measure say more of F1 than another?"""

    asked: str
    """In words."""
    task: str | None
    points: str
    first: str
    second: str
    rho_difference: Estimate
    """Rho of the first less rho of the second, a loss's turned round; n the settings, both from the
    same resamples."""
    error_ratio: Estimate
    """Error of leave-one-setting-out prediction, first over second; below 1 where the first is
    better; n the settings. All None for pooled."""


@dataclass(frozen=True)
class Predictor:
    """Leave-one-setting-out prediction of F1 within a task (synthetic, limited, mixture)."""

    task: str
    name: str
    features: Sequence[str]
    mae: float
    """Mean absolute error over settings, in F1."""
    mean_only_mae: float
    """Of predicting the mean of the other settings."""
    ratio: Estimate
    """mae / mean_only_mae; n the settings."""
    num_runs: int
    ratio_to_loss: Estimate
    """mae / that of validation loss; n the settings; None for validation loss itself."""
    ratio_by_family: Estimate
    """As `ratio`, with the whole family of a setting left out; n the families."""


@dataclass(frozen=True)
class Choice:
    """How often a measure picks the better of two settings, whose F1 differ over the questions."""

    task: str
    measure: str
    right: int
    wrong: int
    tied: int
    """Pairs that it ranks alike."""
    num_settings: int
    """That were paired: synthetic, limited and mixture settings with predictions."""


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: the same weights, scorer, mode and match."""

    name: str
    model: str
    weights_sha256: str | None
    scorer: str
    mode: str
    match: str
    tasks: Sequence[Task]
    correlations: Sequence[Rho]
    rho_over: Sequence[RhoOver]
    questions: Sequence[Question]
    predictors: Sequence[Predictor]
    choices: Sequence[Choice]
    answers: Sequence[str]
    """The findings in plain sentences, with their numbers; first the one that matters most."""


@dataclass(frozen=True)
class Findings:
    """Everything."""

    study: str | None
    """Name of the study, where a study.json was given."""
    groups: Sequence[Group]
    num_runs: int
    """Run folders that were looked at, and runs that a study has planned."""
    num_left_out: int
    """Those of them that are in no figure."""
    skipped: Sequence[Skipped]
    warnings: Sequence[str]
    sce_version: str
    schema: str = SCHEMA
    notes: Mapping[str, str] = field(default_factory=lambda: dict(NOTES))

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and text; maps rounded to 6 digits, NaN as None."""
        return json.loads(as_json(self))

    def save(self, file: Path) -> None:
        """Write `to_json` whole or not at all."""
        with whole(file) as part:
            part.write_text(as_json(self) + "\n", encoding="utf-8")


NOTES = {
    "interval": "95%. Of a run: bootstrap over examples. Of a setting: mean of its seeds' bounds. "
    "Of rho: bootstrap over settings, their seeds drawn anew inside.",
    "p": "Exchange of whole settings, two-sided, not corrected for the number of tests; Holm: so "
    "corrected. It takes settings for independent: where those of a family are alike it is too "
    "small, and that between families is the one to check it by.",
    "ceiling": "What one real run shares with the reference, or with the other real runs where it "
    "took part in that.",
    "null": "The same number of heads, or the same scores, dealt at random within each layer.",
    "untuned": "The model before tuning: most retrieval heads are there already.",
}
"""What a reader of any figure must know."""
