"""The report of a large study: 100 runs of 10 checkpoints and 1,024 heads, from files to a page.

    python tests/bench/report.py [--small] [--json OUT]

Each stage is a whole command in a process of its own, its start and imports with it: findings and
tables (--no-figures); the page too; all figures as files too. `children_gib` is the most that one
of the processes had that draw files.
"""

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from timing import seconds

sys.path.append(str(machine.ROOT / "tests"))
STAGES = ("findings and tables", "with the page", "with all files")
COLUMNS = "stage s peak_gib children_gib page_mb".split()
AIM_S, AIM_GIB = 10, 1


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every stage, three times; the fastest counts."""
    from study_runs import Planted, World, write_study

    world = World(layers=32, heads=32, num_untuned=25, num_learned=30)
    steps = (0, 3, 6, 9, 12, 15, 18, 21, 22, 24)
    planted = Planted(48, noise=0.03, real_seeds=(100, 101, 102, 103), steps=steps)
    if options.small:
        world, planted = World(), Planted(4)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder) / "study", [world], planted)
        for stage in STAGES:
            spec = {"stage": stage, "study": str(study), "out": f"{folder}/{stage}"}
            found = [_timed(spec) for _ in range(1 if options.small else 3)]
            failed = [row for row in found if "error" in row]
            rows.append({"stage": stage} | (failed or sorted(found, key=lambda row: row["s"]))[0])
    machine.print_table("report", rows, COLUMNS)
    page = next(row for row in rows if row["stage"] == STAGES[1])
    aims = [
        machine.aim("seconds, with the page", page.get("s"), most=AIM_S),
        machine.aim("GiB", page.get("peak_gib"), most=AIM_GIB),
    ]
    return {"rows": rows, "aims": [] if options.small else aims}


def _timed(spec: dict[str, Any]) -> dict[str, Any]:
    """One command and how long it took; no time where it failed."""
    found: dict[str, Any] = {}
    spent = seconds(lambda: found.update(machine.isolated(__file__, spec)))
    return found if "error" in found else found | {"s": spent}


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """One command."""
    from sce.analysis.__main__ import main

    out = Path(spec["out"])
    if spec["stage"] == STAGES[1]:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does, before numpy is there
        from sce.analysis.charts import files

        files.save_figures = lambda *given: []
    alone = ["--no-figures"] if spec["stage"] == STAGES[0] else []
    if main([spec["study"], "--out", str(out), *alone]):
        raise SystemExit("sce.analysis failed")
    page = out / "index.html"
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {
        "peak_gib": machine.peak_gib(),
        "children_gib": children or None,
        "page_mb": page.stat().st_size / 1e6 if page.is_file() else None,
    }


if __name__ == "__main__":
    machine.run(__doc__ or "", bench, worker)
