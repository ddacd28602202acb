"""python -m sce.score: score every head of a model, with or without an adapter, on one split.

Writes HeadScores JSON (schema sce.heads/1) with per-example scores beside it, and on request an
audit file from which anyone can work every score out again.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from sce.commands import MODES, ScoreConfig
from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.importing import importing
from sce.one_line import one_line_errors, run
from sce.outputs import require_writable

if TYPE_CHECKING:
    from sce.assemble import Parts
    from sce.decode import DecodeSettings, Outcome
    from sce.records import RunFacts

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
    _require_places(config, every)
    with importing():
        from sce.assemble import assemble, facts, scored_model, settings
        from sce.model.backends import best_device
        from sce.score_output import Looks, none_kept, write_audit, write_scores

    adapter = Path(config.adapter) if config.adapter else None
    on_gpu = best_device().type == "cuda"
    parts = assemble(config, [config.split], on_gpu=on_gpu, adapter=adapter)
    known = facts(parts, run=config.adapter or "untuned", run_dir=Path.cwd())
    for line in _what_is_scored(config, parts, known):
        _log.info(line)
    model = scored_model(parts, adapter)
    scorers = _every_scorer(config, model) if every else (config.scorer.name,)
    wanted = settings(parts, model, scorers=scorers, modes=MODES if every else (config.mode,))
    looks = (
        Looks(config, lambda token: str(parts.tokenizer.decode([token]))) if config.looks else None
    )
    outcomes = _outcomes(parts, model, replace(wanted, on_trace=looks))
    if config.audit:
        write_audit(Path(config.audit), config, outcomes, wanted.detokenize)
        _log.info("wrote %s", config.audit)
    if looks is not None and config.looks:
        looks.write(Path(config.looks), outcomes)
        _log.info("wrote %s", config.looks)
    keys = list(outcomes[0].scores)
    files = []
    for scorer, mode in keys:
        name = f"{scorer}-{mode}-{config.match}.json"
        file = Path(config.out) / name if every else Path(config.out)
        if write_scores(file, (scorer, mode), config, outcomes, known):
            files.append(file)
    if not files:
        raise InputError(none_kept(keys[0][0], len(outcomes)))
    return files


def _what_is_scored(config: ScoreConfig, parts: "Parts", known: "RunFacts") -> list[str]:
    """Model, attention and examples, and whether these are not the ones the run itself scored."""
    from sce.model.build import read_adapter_note

    lines = [f"model      {config.model.name_or_path} in {config.model.dtype}"]
    lines += parts.attention.lines
    lines.append(f"{config.split:<10} {parts.splits[config.split].described()}")
    if config.adapter is None or config.split != "reference":
        return lines
    trained_beside = read_adapter_note(Path(config.adapter)).get("data_sha256")
    if trained_beside not in (None, known.reference_sha256):
        lines.append(
            "not the examples that the run scored its heads on; for those repeat its data.* "
            "(its config.yaml)"
        )
    return lines


def _every_scorer(config: ScoreConfig, model: Any) -> tuple[str, ...]:
    """Those that are defined for the task in some mode, and for the model."""
    from sce.heads import SCORERS
    from sce.model.build import head_shape
    from sce.model.projections import head_outputs, require_ungated

    chosen = []
    for name, scorer in SCORERS.items():
        spec = scorer.SPEC
        if spec.refusal(name, spec.modes[0], config.data.task) is not None:
            continue
        # One that was asked for by name is refused, not left out.
        if spec.writes and name != config.scorer.name:
            try:
                require_ungated(head_outputs(model, head_shape(model)[1]))
            except InputError as error:
                _log.info("no %s: %s", name, error)
                continue
        chosen.append(name)
    return tuple(chosen)


def _require_places(config: ScoreConfig, every: bool) -> None:
    """Refuse, before the work is done, what could not be written after it."""
    out = Path(config.out)
    places: dict[Path, str] = {}
    if every:
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"out={config.out} is not empty; name another folder")
        require_writable(f"out={config.out}", out)
    elif out.suffix != ".json":
        raise InputError(
            f"out={config.out}: head scores are plain JSON; end the name in .json, or in / for a "
            "folder that gets a file for every scorer"
        )
    else:
        places = {out: f"out={config.out}", out.with_suffix(".npz"): f"out={config.out}"}
    for name, given in (("audit", config.audit), ("looks", config.looks)):
        if given is None:
            continue
        file, option = Path(given), f"{name}={given}"
        inside = every and file.parent == out and file.suffix in (".json", ".npz")
        if inside or file in (out, *places):
            taken = places.get(file, f"out={config.out}")
            raise InputError(f"{option} is one of the files of {taken}; name another")
        places[file] = option
    for file, option in places.items():
        require_writable(option, file.parent)
        if file.exists():
            raise InputError(f"{file} exists; name another file or delete it")
        file.parent.mkdir(parents=True, exist_ok=True)


def _outcomes(parts: "Parts", model: Any, wanted: "DecodeSettings") -> "list[Outcome]":
    """Outcomes of the whole split, ordered by example id, so that files line up pair by pair."""
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


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
