"""How two maps of head scores are compared, and how sure one may be of the answer.

A quantity that does not exist (a share of nothing, the correlation of a constant) is None, never 0
or NaN, and its n stands beside it. Every draw comes from the seed that is passed. Knows neither
models nor files: numpy and scipy alone.
"""

from sce.stats.bands import with_bands
from sce.stats.bins import Bin, by_bins
from sce.stats.confounds import PooledAndBy, WithinBetween, pooled_and_by, within_and_between
from sce.stats.correlation import Correlation, correlate, partial_given_layer
from sce.stats.intervals import comparison_intervals, drawn_together, mean_of
from sce.stats.paired import (
    Faithfulness,
    McNemar,
    PairedDifference,
    Recovered,
    area,
    faithfulness,
    faithfulness_interval,
    mcnemar,
    paired_permutation,
    share_recovered,
)
from sce.stats.permutation import permutation_p_value
from sce.stats.predict import (
    CellPrediction,
    Prediction,
    compare_predictors,
    concentration,
    error_ratio,
    leave_one_out,
    needs_no_real_data,
)
from sce.stats.resampling import (
    Estimate,
    bootstrap_interval,
    bootstrap_many,
    bootstrap_ratio,
    bootstrap_statistic,
    mean_scores,
    num_kept,
    paired_bootstrap,
    spearman_brown,
    split_half,
)
from sce.stats.series import (
    HeadMap,
    HeadSet,
    Series,
    cosine,
    first_differences,
    pearson,
    spearman,
)
from sce.stats.sets import (
    Comparison,
    Curves,
    compare,
    head_set,
    jaccard,
    precision,
    recall,
    recall_curves,
    recall_learned,
    recall_null,
    recall_null_layer,
    top_heads,
)

__all__ = [
    "Bin",
    "CellPrediction",
    "Comparison",
    "Correlation",
    "Curves",
    "Estimate",
    "Faithfulness",
    "HeadMap",
    "HeadSet",
    "McNemar",
    "PairedDifference",
    "PooledAndBy",
    "Prediction",
    "Recovered",
    "Series",
    "WithinBetween",
    "area",
    "bootstrap_interval",
    "bootstrap_many",
    "bootstrap_ratio",
    "bootstrap_statistic",
    "by_bins",
    "compare",
    "compare_predictors",
    "comparison_intervals",
    "concentration",
    "correlate",
    "cosine",
    "drawn_together",
    "error_ratio",
    "faithfulness",
    "faithfulness_interval",
    "first_differences",
    "head_set",
    "jaccard",
    "leave_one_out",
    "mcnemar",
    "mean_of",
    "mean_scores",
    "needs_no_real_data",
    "num_kept",
    "paired_bootstrap",
    "paired_permutation",
    "partial_given_layer",
    "pearson",
    "permutation_p_value",
    "pooled_and_by",
    "precision",
    "recall",
    "recall_curves",
    "recall_learned",
    "recall_null",
    "recall_null_layer",
    "share_recovered",
    "spearman",
    "spearman_brown",
    "split_half",
    "top_heads",
    "with_bands",
    "within_and_between",
]
