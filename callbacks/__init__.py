"""What happens as a run goes: one callback a file, named in conf/callbacks.

They read `SceModule.last_validation` and hand figures on through the trainer's callback_metrics
and the run's records; none looks another one up. Their order in conf/callbacks is the order they
act in. `RetrievalHeadsCallback` is the one for runs of transformers' Trainer.
"""

from callbacks.adapter_export import AdapterExport
from callbacks.graceful_stop import GracefulStop
from callbacks.head_heatmap import HeadHeatmap
from callbacks.progress_lines import ProgressLines
from callbacks.recall_accuracy_correlation import RecallAccuracyCorrelation
from callbacks.recall_early_stopping import RecallEarlyStopping
from callbacks.retrieval_head_recall import RetrievalHeadRecall
from callbacks.run_checkpoint import RunCheckpoint
from callbacks.run_records import RunRecords
from callbacks.score_curves import ScoreCurves
from callbacks.throughput import Throughput
from callbacks.transformers_retrieval_heads import RetrievalHeadsCallback

__all__ = [
    "AdapterExport",
    "GracefulStop",
    "HeadHeatmap",
    "ProgressLines",
    "RecallAccuracyCorrelation",
    "RecallEarlyStopping",
    "RetrievalHeadRecall",
    "RetrievalHeadsCallback",
    "RunCheckpoint",
    "RunRecords",
    "ScoreCurves",
    "Throughput",
]
