"""python -m sce.score: score every head of a model, with or without an adapter, on one split.

Writes HeadScores JSON (schema sce.heads/1) with per-example scores beside it, and on request an
audit file from which anyone can work every score out again.
"""

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from sce.commands import MODES, ScoreConfig
from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.one_line import one_line_errors, run

if TYPE_CHECKING:
    from sce.assemble import Parts
    from sce.decode import DecodeSettings, Outcome

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="score")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Score one model."""
    score(typed(composed, ScoreConfig))


def score(config: ScoreConfig) -> list[Path]:
    """Score as configured; returns the files written.

    Raises:
        InputError: the user's input is wrong, or an output file exists.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    every = config.out.endswith("/") or Path(config.out).is_dir()
    _refuse_existing(config, every)
    import torch

    from sce.assemble import assemble, facts, scored_model, settings

    adapter = Path(config.adapter).expanduser() if config.adapter else None
    on_gpu = torch.cuda.is_available()
    parts = assemble(config, [config.split], on_gpu=on_gpu, adapter=adapter)
    _log.info("attention  %s (%s)", parts.attention.backend, parts.attention.reason)
    model = scored_model(parts, adapter)
    scorers = _every_scorer(config) if every else (config.scorer.name,)
    modes = MODES if every else (config.mode,)
    outcomes = _outcomes(parts, model, settings(parts, model, scorers=scorers, modes=modes))
    known = facts(parts, run=config.adapter or "untuned", run_dir=Path.cwd())
    keys = list(outcomes[0].scores)
    folder = Path(config.out) if every else Path(config.out).parent
    files = []
    for scorer, mode in keys:
        file = folder / (f"{scorer}-{mode}-{config.match}.json" if every else Path(config.out).name)
        if _write(file, scorer, mode, config, outcomes, known):
            files.append(file)
    if not files:
        raise InputError(_none_kept(keys[0][0], len(outcomes)))
    if config.audit:
        _write_audit(Path(config.audit), config, outcomes)
        _log.info("wrote %s", config.audit)
    return files


def _every_scorer(config: ScoreConfig) -> tuple[str, ...]:
    """Those that are defined for the task in some mode."""
    from sce.heads import SCORERS

    return tuple(
        name
        for name, scorer in SCORERS.items()
        if scorer.SPEC.refusal(name, scorer.SPEC.modes[0], config.data.task) is None
    )


def _none_kept(scorer: str, count: int) -> str:
    return (
        f"scorer={scorer}: none of the {count} answers holds more than half of the right one's "
        "words, so there is no example to score; use a model that finds the needle, or scorer=copy "
        "mode=teacher_forced"
    )


def _refuse_existing(config: ScoreConfig, every: bool) -> None:
    outputs = [Path(config.audit)] if config.audit else []
    if every:
        if Path(config.out).is_dir() and any(Path(config.out).iterdir()):
            raise InputError(f"out={config.out} is not empty; name another folder")
    else:
        outputs += [Path(config.out), Path(config.out).with_suffix(".npz")]
    if len(set(outputs)) < len(outputs):
        raise InputError(f"out={config.out} and audit={config.audit} are one file; name two")
    for file in outputs:
        if file.exists():
            raise InputError(f"{file} exists; name another file or delete it")


def _outcomes(parts: "Parts", model: Any, wanted: "DecodeSettings") -> "list[Outcome]":
    """Outcomes of the whole split, ordered by example id, so that files line up pair by pair."""
    from dataclasses import replace

    from sce.data.loader import eval_loader
    from sce.decode import GREEDY, decode

    if GREEDY not in wanted.modes:
        wanted = replace(wanted, max_new_tokens=0)
    encoded = next(iter(parts.splits.values())).encoded
    device = next(model.parameters()).device
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    for batch in eval_loader(encoded, parts.config.batch.eval):
        outcomes += decode(model, batch.to(device), wanted)
        elapsed = time.perf_counter() - started
        _log.info("scored %d of %d examples   %.0f s", len(outcomes), len(encoded), elapsed)
    return sorted(outcomes, key=lambda outcome: outcome.example.id)


def _adapter_provenance(adapter: Path | None) -> dict[str, Any]:
    if adapter is None:
        return {"adapter_sha256": None}
    from sce.model.build import read_adapter_note
    from sce.model.weights import weights_sha256

    note = read_adapter_note(adapter)
    kept = ("seed", "step", "concept", "context", "train_sha256")
    return {
        "adapter_sha256": weights_sha256(adapter),
        "adapter": {name: note.get(name) for name in kept},
    }


def _write(
    file: Path,
    scorer: str,
    mode: str,
    config: ScoreConfig,
    outcomes: "list[Outcome]",
    known: Any,
) -> bool:
    """Write the set over the examples that the scorer kept; False if it kept none."""
    import numpy as np

    from sce.records import HeadScores, provenance
    from sce.stats import mean_scores, num_kept

    per_example = np.stack([o.scores[scorer, mode].numpy() for o in outcomes]).astype(np.float64)
    if not num_kept(per_example):
        _log.info("no %s: %s", file, _none_kept(scorer, len(outcomes)))
        return False
    more = {
        **_adapter_provenance(Path(config.adapter).expanduser() if config.adapter else None),
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


def _scored_data(known: Any, split: str) -> str:
    names = {"train": "train_sha256", "val": "eval_sha256", "reference": "reference_sha256"}
    return getattr(known, names[split])


def _write_audit(file: Path, config: ScoreConfig, outcomes: "list[Outcome]") -> None:
    """One object an example: all it takes to score it by hand."""
    from sce.records import finite

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        for outcome in outcomes:
            example = outcome.example
            gold = config.mode == "teacher_forced"
            scores = outcome.scores[config.scorer.name, config.mode]
            row = {
                "id": example.id,
                "prompt_ids": example.prompt_ids.tolist(),
                "evidence_positions": example.evidence.tolist(),
                "answer_ids": example.target_ids.tolist() if gold else list(outcome.answer_ids),
                "scores": [[round(float(s), 9) for s in layer] for layer in scores],
            }
            # NaN, where the scorer did not keep the example, becomes null.
            stream.write(json.dumps(finite(row)) + "\n")


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
