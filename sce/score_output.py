"""What python -m sce.score writes: head scores with where they come from, and the audit file."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sce.commands import ScoreConfig
from sce.data.encode import Encoded
from sce.decode import Outcome
from sce.heads import GREEDY, TEACHER_FORCED, Trace
from sce.heads.insight import label_spans, needles_of
from sce.model.build import read_adapter_note
from sce.model.weights import weights_sha256
from sce.records import HeadScores, RunFacts, finite, provenance
from sce.stats import mean_scores, num_kept

LOOKS = "sce.looks/1"
_log = logging.getLogger("sce")
Detokenize = Callable[[Sequence[int]], str]


def none_kept(scorer: str, count: int) -> str:
    """Why there are no scores of `count` examples."""
    return (
        f"scorer={scorer}: none of the {count} answers holds more than half of the right one's "
        "words, so there is no example to score; use a model that finds the needle, or scorer=copy "
        "mode=teacher_forced"
    )


def write_scores(
    file: Path,
    key: tuple[str, str],
    config: ScoreConfig,
    outcomes: Sequence[Outcome],
    known: RunFacts,
) -> bool:
    """Write the set of (scorer, mode) over the examples that were kept; False if none was."""
    scorer, mode = key
    per_example = np.stack([o.scores[key].numpy() for o in outcomes]).astype(np.float64)
    if not num_kept(per_example):
        _log.info("no %s: %s", file, none_kept(scorer, len(outcomes)))
        return False
    more = {
        **_adapter_provenance(Path(config.adapter) if config.adapter else None),
        "data_sha256": _scored_data(known, config.split),
        "split": config.split,
        "num_offered": len(outcomes),
    }
    HeadScores(
        scorer=scorer,
        mode=mode,
        match=config.match,
        scores=mean_scores(per_example),
        num_examples=num_kept(per_example),
        per_example=per_example,
        provenance={**provenance(known), **more},
    ).save(file)
    _log.info("wrote %s", file)
    return True


def _adapter_provenance(adapter: Path | None) -> dict[str, Any]:
    if adapter is None:
        return {"adapter_sha256": None}
    note = read_adapter_note(adapter)
    kept = ("seed", "step", "concept", "context", "train_sha256")
    return {
        "adapter_sha256": weights_sha256(adapter),
        "adapter": {name: note.get(name) for name in kept},
    }


def _scored_data(known: RunFacts, split: str) -> str:
    names = {"train": "train_sha256", "val": "eval_sha256", "reference": "reference_sha256"}
    return getattr(known, names[split])


class Looks:
    """Where every head looks, example by example, for a report to show; an `on_trace`."""

    def __init__(self, config: ScoreConfig, text: Callable[[int], str]) -> None:
        """Take what names the rows.

        Args:
            config: what is scored; the rows are of its mode.
            text: of one token, as it stands among others.
        """
        self._config, self._text = config, text
        self._rows: dict[str, dict[str, Any]] = {}

    def __call__(self, example: Encoded, mode: str, trace: Trace) -> None:
        """Keep an example's steps."""
        if mode != self._config.mode:
            return
        inside = (trace.looked_at >= 0) & (trace.looked_at < len(trace.prompt))
        self._rows[example.id] = {
            "schema": LOOKS,
            "model": _label(self._config.adapter),
            "task": example.task,
            "id": example.id,
            "tokens": [self._text(token) for token in example.prompt_ids.tolist()],
            "evidence": example.evidence.tolist(),
            "looked_at": trace.looked_at.where(inside, -1).tolist(),
            "scorer": self._config.scorer.name,
            "mode": mode,
        }

    def write(self, file: Path, outcomes: Sequence[Outcome]) -> None:
        """One JSON object an example: where in the prompt each head looks at each answer token.

        `looked_at` is [layers][heads][answer tokens], positions from the prompt's first token, -1
        outside of it; `tokens` and `answer` are texts, `scores` the scorer's of this example.
        """
        with file.open("w", encoding="utf-8") as stream:
            for outcome in outcomes:
                example, key = outcome.example, (self._config.scorer.name, self._config.mode)
                gold = example.target_ids.tolist()
                answer = gold if self._config.mode == TEACHER_FORCED else outcome.answer_ids
                own = {
                    "answer": [self._text(token) for token in answer],
                    "scores": [[round(float(s), 6) for s in a] for a in outcome.scores[key]],
                }
                stream.write(json.dumps(finite({**self._rows[example.id], **own})) + "\n")


def _label(adapter: str | None) -> str:
    """Of a run's adapter/ the run's name, else the folder's."""
    if adapter is None:
        return "untuned"
    folder = Path(adapter).absolute()
    return folder.parent.name if folder.name == "adapter" else folder.name


def write_audit(
    file: Path, config: ScoreConfig, outcomes: Sequence[Outcome], text: Detokenize | None
) -> None:
    """One object an example: all it takes to score it by hand under `config.scorer` and its mode.

    Every row has id, prompt_ids, evidence_positions, answer_ids and scores, which is all that copy,
    copy_needle and ov_write read; positions count from the prompt's first token. More of it:

    insight: `needles`, the evidence span of each evidence position (a document's are one), and
        `cited`, the span that each answer token cites (-1: none), or in greedy mode `label_spans`,
        from the label of a document to cite to its span.
    query_focused: `question`, its first position and the one after its last; `gold`, the same of
        every document with evidence; the null prompt is `prompt_ids[:null_start] + null_ids`, whose
        last `num_null` tokens are the null question.
    wu2024_code: `answers`, one of which the emitted text must hold more than half of.

    Args:
        file: is written anew.
        config: what was scored.
        outcomes: of every example.
        text: of some tokens; without it there is no `label_spans`.
    """
    with file.open("w", encoding="utf-8") as stream:
        for outcome in outcomes:
            example = outcome.example
            answers = {TEACHER_FORCED: example.target_ids.tolist(), GREEDY: outcome.answer_ids}
            scores = outcome.scores[config.scorer.name, config.mode]
            row = {
                "id": example.id,
                "prompt_ids": example.prompt_ids.tolist(),
                "evidence_positions": example.evidence.tolist(),
                "answer_ids": answers.get(config.mode, []),
                **_read_by(config.scorer.name, config.mode, example, text),
                "scores": [[round(float(s), 9) for s in layer] for layer in scores],
            }
            # NaN, where the scorer did not keep the example, becomes null.
            stream.write(json.dumps(finite(row)) + "\n")


def _read_by(scorer: str, mode: str, example: Encoded, text: Detokenize | None) -> dict[str, Any]:
    """What a scorer reads of an example beside prompt, evidence and answer."""
    if scorer == "wu2024_code":
        return {"answers": list(example.answers)}
    if scorer == "insight":
        spans = {"cited": example.cited.tolist()}
        if mode == GREEDY:
            spans = {} if text is None else {"label_spans": label_spans(example, text)}
        return {"needles": needles_of(example).tolist(), **spans}
    if scorer == "query_focused" and (asked := example.asked) is not None:
        spans = {name: getattr(asked, name).tolist() for name in ("question", "gold", "null_ids")}
        return {**spans, "null_start": asked.null_start, "num_null": asked.num_null}
    return {}
