"""The end of a study: its analysis, and what of it goes to W&B."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sce.analysis.__main__ import main as analyse
from sce.errors import InputError
from sce.logger import make_logger, run_path
from sce.options import LoggerOptions

REPORT = "report"


def require_report() -> None:
    """Raise before the first run, not after the last, if the figures cannot be drawn.

    Raises:
        InputError: says what to install.
    """
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"the report needs {error.name}, which is not installed: pip install 'sce[analysis]'"
        ) from None


def write_report(folder: Path, name: str, logger: str) -> Path:
    """Analyse a study and log what was found; returns the report's folder.

    Args:
        folder: of the study.
        name: of the study.
        logger: wandb, csv or none.

    Raises:
        InputError: no run is finished.
    """
    out = folder / REPORT
    if analyse([str(folder), "--out", str(out)]):
        raise InputError(f"there is no report of {folder}: see the line above")
    if logger == "wandb":
        _log_report(out, name)
    return out


def _log_report(out: Path, name: str) -> None:
    """Figures as images, tables as tables, the HTML report as an artefact."""
    kept = out.parent / "jobs" / "report.wandb"  # a study that is run again goes on with its run
    run_logger = make_logger(
        LoggerOptions(name="wandb", group=name),
        run_dir=out.absolute(),
        run_name=f"{name}-report",
        config={"study": name},
        tags=["study"],
        job_type="report",
        run_path=kept.read_text("utf-8") if kept.is_file() else None,
    )
    exit_code = 1
    try:
        logger = run_logger.logger
        if (own := run_path(run_logger)) is not None:
            kept.write_text(own, "utf-8")
        if logger is not None and hasattr(logger, "log_image"):
            logger.log_metrics(metrics(out / "findings.json"), step=0)
            for figure in sorted((out / "figures").glob("*.png")):
                logger.log_image(f"study/{figure.stem}", [str(figure)])  # type: ignore[attr-defined]
            for table in sorted((out / "tables").glob("*.csv")):
                columns, rows = typed_table(table)
                logger.log_table(f"study/{table.stem}", columns=columns, data=rows)  # type: ignore[attr-defined]
            if (out / "index.html").is_file():
                run_logger.keep(out / "index.html", f"{name}-report", "report")
        exit_code = 0
    finally:
        run_logger.finish(exit_code)


def metrics(findings: Path) -> dict[str, float]:
    """study/<measure>_f1_spearman by task (none: pooled), with bounds, p and n, of all settings.

    Args:
        findings: findings.json of sce.analysis.
    """
    found: dict[str, float] = {}
    for group in json.loads(findings.read_text("utf-8"))["groups"]:
        for rho in group["correlations"]:
            told = rho["without_task_means"] == (rho["task"] is None)
            if rho["points"] != "synthetic" or not told:
                continue
            stem = "/".join(filter(None, ("study", rho["task"], f"{rho['measure']}_f1")))
            of = rho["found"]
            named = {"spearman": of["spearman"], "p": of["p_value"], "n": of["n"]}
            bounds = {"spearman_low": of["spearman_low"], "spearman_high": of["spearman_high"]}
            found |= {f"{stem}_{k}": v for k, v in (named | bounds).items() if v is not None}
    return found


def typed_table(file: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a CSV table; where all that a column holds are numbers, as numbers."""
    with file.open(encoding="utf-8", newline="") as stream:
        columns, *rows = list(csv.reader(stream)) or [[]]
    typed = [_typed(cells) for cells in zip(*rows, strict=True)]
    return columns, [list(row) for row in zip(*typed, strict=True)]


def _typed(cells: Sequence[str]) -> Sequence[Any]:
    try:
        return [float(cell) if cell else None for cell in cells] if any(cells) else cells
    except ValueError:
        return cells
