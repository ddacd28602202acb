"""python -m sce.intervene: take heads out, or patch them from another model, and see what it does.

Writes results.json (schema sce.intervention/1), table.csv and figure.png into a new folder, prints
a table, and logs the curves.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.importing import importing
from sce.intervene_options import InterveneConfig
from sce.one_line import one_line_errors, run
from sce.outputs import require_writable

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="intervene")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Knock out or patch."""
    intervene(typed(composed, InterveneConfig))


def intervene(config: InterveneConfig) -> Path:
    """Intervene as configured; returns the folder written.

    Raises:
        InputError: the user's input is wrong, or the folder holds something.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    # PEFT's call into transformers; it says nothing about the run.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    out = Path(config.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"out={config.out} exists and is not empty; name another folder")
    require_writable(f"out={config.out}", out)  # now, not after an hour's work
    with importing():
        from sce.figures import save_png
        from sce.interventions import baselines
        from sce.interventions.command import answer_knocked_out, answer_patched
        from sce.interventions.report import flat_rows, printed, results, write_csv
        from sce.records import finite, write_json

    if config.method == "baselines":
        result = finite(baselines.results(config, baselines.answer_baselines(config)))
        table, text = result["rows"], baselines.printed(result)
        figure, points = None, baselines.points(result)
    else:
        knocked_out = config.method == "knockout"
        found = answer_knocked_out(config) if knocked_out else answer_patched(config)
        result = finite(results(config, found))
        table, text = flat_rows(result), printed(result)
        figure, points = _figure(result), _points(result)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", result)
    write_csv(out / "table.csv", table)
    if figure is not None:
        save_png(figure, out / "figure.png")
    _log.info(text)
    _log_points(config, points, out)
    _log.info("wrote %s: %s", out, ", ".join(sorted(file.name for file in out.glob("*.*"))))
    return out


def _figure(result: dict[str, Any]) -> Any:
    from sce.interventions.curves import knockout_figure
    from sce.interventions.recovery import patch_figure

    if result["method"] == "patch":
        rows = {way: found["rows"] for way, found in result["directions"].items()}
        return patch_figure(rows, title=f"patching at the answer's positions, {result['task']}")
    where = "all positions" if result["positions"] == "all" else "from the last prompt token on"
    title = f"knockout ({result['ablation']}, {where}), {result['task']}"
    return knockout_figure(result["curves"], result["rows"][0], title=title)


def _log_points(config: InterveneConfig, points: dict[int, dict[str, float]], out: Path) -> None:
    """One point a size of set, x axis k; the other methods have one point. And the figure."""
    from sce.logger import make_logger

    run_logger = make_logger(
        config.logger,
        run_dir=out.absolute(),
        run_name=out.name,
        config=asdict(config),
        tags=[config.data.task, config.model.name_or_path],
        job_type=f"intervene-{config.method}",
    )
    _log.info(run_logger.message)
    logger = run_logger.logger
    exit_code = 1
    try:
        if logger is not None:
            for step, metrics in sorted(points.items()):
                logger.log_metrics(metrics, step=step)
            if hasattr(logger, "log_image") and (out / "figure.png").is_file():
                logger.log_image("intervene/figure", [str(out / "figure.png")])  # type: ignore[attr-defined]
        exit_code = 0
    finally:
        run_logger.finish(exit_code)


def _points(result: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Step (k of a knockout, else 0) -> metrics under intervene/, with n and interval bounds."""
    points: dict[int, dict[str, float]] = {}
    if result["method"] == "patch":
        found: dict[str, float] = {}
        for way, of_way in result["directions"].items():
            for row in of_way["rows"]:
                stem = f"intervene/{way}/{row['name']}/{row['kind']}-{row['draw'] or 0}"
                found |= _estimates(stem, row, ("f1", "exact_match", "answer_nll", "share", "gap"))
        return {0: found}
    measures = ("f1", "answer_nll", "closed_book")
    for curve in result["curves"]:
        stem = f"intervene/{curve['name']}/{curve['kind']}"
        at_0 = points.setdefault(0, {"intervene/k": 0})
        at_0 |= _estimates(stem, result["rows"][0], measures)
        at_0 |= _estimates(stem, curve, ("cpr", "cmd"))
        for index, k in enumerate(curve["k"]):
            at_k = points.setdefault(k, {"intervene/k": k})
            row = {key: v[index] if isinstance(v, list) else v for key, v in curve.items()}
            at_k |= _estimates(stem, row, measures)
    return points


def _estimates(stem: str, row: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    """What a row holds of `names`, each with its bounds, and over how many examples that is."""
    kept = [f"{name}{end}" for name in names for end in ("", "_low", "_high", "_n")]
    return {f"{stem}/{key}": row[key] for key in ("n", *kept) if row.get(key) is not None}


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
