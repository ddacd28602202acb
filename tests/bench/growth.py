"""How time and memory grow with the context, 0.5K to 8K: a training step and a scoring pass.

    python tests/bench/growth.py [--small] [--json OUT] [--recompute]

Each length runs in a process of its own. The exponent is the least-squares slope of log y over
log length with its 95% interval (Student's t); y is the median seconds, or how far the peak of
resident memory rose above what was resident with the model loaded. Linear is 1, quadratic 2: a
training step's own FLOPs lie between, since attention's share grows with the length.
"""

import argparse
import statistics
from dataclasses import asdict
from typing import Any

import machine
import torch
import training
from timing import growth, seconds
from workload import base_model, batch

from sce.decode import DecodeSettings, decode

LENGTHS, SMALL = (512, 1024, 2048, 4096, 8192), (48, 96, 144)
SCORERS = ("copy", "copy_needle", "ov_write")
COLUMNS = "kind tokens s tokens_per_s peak_gib grown_gib".split()


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every length of both kinds, and the fits."""
    rows = []
    for tokens in SMALL if options.small else LENGTHS:
        for kind in ("training step", "scoring pass"):
            spec = {
                "kind": kind,
                "tokens": tokens,
                "repeats": 2 if options.small else 4,
                "recompute": options.recompute,
                "model": options.model,
            }
            rows.append({**spec, **machine.isolated(__file__, spec)})
            machine.print_table(f"{kind} at {tokens}", rows[-1:], COLUMNS)
    machine.print_table("growth", rows, COLUMNS)
    fits = [fit for kind in ("training step", "scoring pass") for fit in _fits(kind, rows)]
    machine.print_table("exponents", fits, ["what", "exponent", "low", "high"])
    return {"rows": rows, "exponents": fits, "aims": [] if options.small else _aims(fits)}


def _fits(kind: str, rows: list[dict]) -> list[dict]:
    found = []
    for name, column in (("time", "s"), ("memory", "grown_gib")):
        own = [r for r in rows if r["kind"] == kind and r.get(column)]
        fit = growth([r["tokens"] for r in own], [r[column] for r in own])
        found.append({"what": f"{kind}: {name}", **(asdict(fit) if fit else {})})
    return found


def _aims(fits: list[dict]) -> list[dict]:
    """Nothing is quadratic in memory."""
    memory = [fit for fit in fits if fit["what"].endswith("memory")]
    return [machine.aim(f["what"], f.get("exponent"), most=1.1) for f in memory]


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """One length of one kind, one example at a time."""
    torch.manual_seed(0)
    if spec["kind"] == "training step":
        steps = {**spec, "kind": "ours", "batch": 1, "steps": spec["repeats"]}
        found = training.worker({**steps, "roofline": False})
        loaded, times = found["loaded_gib"], found["seconds"]
    else:
        loaded, times = _score(spec)
    spent = statistics.median(times)
    return {
        "s": spent,
        "tokens_per_s": spec["tokens"] / spent,
        "peak_gib": machine.peak_gib(),
        "grown_gib": machine.peak_gib() - loaded,
    }


def _score(spec: dict[str, Any]) -> tuple[float, list[float]]:
    """Teacher-forced and greedy scores of one example, 16 steps."""
    model = base_model(spec["model"])
    settings = DecodeSettings(max_new_tokens=16, fixed_steps=True, scorers=SCORERS)
    decode(model, batch(1, 32), settings)  # warms up
    loaded, data = machine.forget_peak(), batch(1, spec["tokens"])
    run = lambda: decode(model, data, settings)  # noqa: E731
    return loaded, [seconds(run) for _ in range(spec["repeats"])]


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this bench alone."""
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")


if __name__ == "__main__":
    machine.run(__doc__ or "", bench, worker, add)
