"""The runs of a large study, measured on all cores.

Forked processes share what was read already; each measures runs that stand side by side, so that
what those have in common is drawn once in each.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context

from sce.analysis.groups import Member
from sce.analysis.measured import Measured
from sce.analysis.parts import Skipped

FEW = 32
"""Runs up to which a second process costs more than it gives."""
Measure = Callable[[Member], Measured]
_Found = tuple[list[Measured], list[list[Skipped]]]
_FORKED: dict[str, tuple[Sequence[Member], Measure]] = {}
"""What the processes work on; not sent, as a resampler is large."""


def each_measured(runs: Sequence[Member], measure: Measure) -> list[Measured]:
    """Measure every run.

    Args:
        runs: all runs of a task; what cannot be read of them is noted in their files.
        measure: of one run, by `sce.analysis.measured.measured`.
    """
    processes = _processes(len(runs))
    if processes == 1:
        return [measure(run) for run in runs]
    ends = [len(runs) * part // processes for part in range(processes + 1)]
    _FORKED["work"] = runs, measure
    try:
        with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
            found = list(pool.map(_measured, ends[:-1], ends[1:]))
    finally:
        del _FORKED["work"]
    for _, skipped in found:
        for run, own in zip(runs, skipped, strict=True):
            run.files.skipped += [each for each in own if each not in run.files.skipped]
    return [each for measured, _ in found for each in measured]


def _processes(num_runs: int) -> int:
    """One for few runs, and where a fork could copy a lock that another thread holds."""
    if num_runs <= FEW or threading.active_count() > 1 or "fork" not in get_all_start_methods():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _measured(start: int, end: int) -> _Found:
    runs, measure = _FORKED["work"]
    found = [measure(run) for run in runs[start:end]]
    return found, [run.files.skipped for run in runs]
