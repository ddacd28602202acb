"""The run's own record: one row a validation, and every prediction."""

import json
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sce.module import SceModule
from sce.records import append_jsonl, finite
from sce.validation import Prediction

_WITH_INTERVAL = (
    *("recall", "recall_null", "recall_null_layer", "recall_learned", "precision", "jaccard"),
    *("recall_at_k", "recall_base", "cosine", "cosine_base", "cosine_learned", "spearman"),
    *("num_heads", "num_reference_heads", "greedy_recall", "greedy_cosine"),
)
_HEADS = tuple(f"{name}{end}" for name in _WITH_INTERVAL for end in ("", "_low", "_high"))
_NLL_BOUNDS = ("answer_nll_low", "answer_nll_high")
_FACTS = (
    *("run", "study", "seed", "task", "concept", "context", "mix", "limited"),
    *("num_train", "train_sha256", "eval_sha256"),
    *("scorer", "mode", "match", "tau", "k", "context_tokens"),
)


class RunRecords(Callback):
    """Appends to records.jsonl and writes predictions/step-<step>.jsonl.

    Stands after the callbacks whose figures it records.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this validation's row and predictions."""
        assert isinstance(pl_module, SceModule)
        validation, facts = pl_module.last_validation, pl_module.facts
        if validation is None or not trainer.is_global_zero:
            return
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        heads = {name: _number(known.get(f"heads/{name}")) for name in _HEADS}
        heads |= {name: _whole(heads[name]) for name in ("num_heads", "num_reference_heads")}
        accuracy = [f"{name}{end}" for name in pl_module.metrics for end in ("", "_low", "_high")]
        row: dict[str, Any] = {
            **{name: getattr(facts, name) for name in _FACTS},
            "step": validation.step,
            "target_tokens": pl_module.target_tokens,
            **heads,
            **{name: _number(known.get(f"val/{name}")) for name in accuracy},
            "answer_nll": validation.answer_nll,
            **{name: _number(known.get(f"val/{name}")) for name in _NLL_BOUNDS},
            "num_examples": len(validation.predictions),
            "num_reference_examples": len(validation.reference),
            "num_kept_examples": _whole(known.get("heads/num_examples")),
            "warnings": list(facts.warnings),
            "seconds": round(self._before + time.perf_counter() - self._started, 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        append_jsonl(facts.run_dir / "records.jsonl", row)
        file = facts.run_dir / "predictions" / f"step-{validation.step:06d}.jsonl"
        file.parent.mkdir(exist_ok=True)
        rows = [finite(_row(each)) for each in validation.predictions]
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"seconds": self._before + time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting seconds."""
        self._before = float(state_dict["seconds"])


def _row(found: Prediction) -> dict[str, Any]:
    """An answer, its metrics, and what the gold one's tokens cost: `nll` is their sum, in nats."""
    accuracy = {"f1": found.f1, "exact_match": found.exact_match, **found.more}
    likelihood = {"nll": found.nll, "num_labels": found.num_labels}
    return {"id": found.id, "prediction": found.text, **accuracy, **likelihood}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else int(value)
