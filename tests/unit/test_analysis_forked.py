"""Runs that are measured by several processes: the same figures, and nothing left unsaid."""

import os
import threading

from sce.analysis import forked
from sce.analysis.as_json import as_json
from sce.analysis.study import analyse
from study_runs import Planted, World, write_runs


def test_processes_find_what_one_process_does_and_tell_what_they_could_not_read(
    tmp_path, monkeypatch
):
    runs = write_runs(tmp_path / "runs", World(), Planted(4))
    torn = [folder / "heads" / "step-000024.npz" for folder in (runs[0], runs[-1])]
    for file in torn:
        file.write_bytes(b"PK torn")
    alone = analyse(runs)
    assert len(alone.skipped) >= len(torn)

    measuring = []
    monkeypatch.setattr(forked, "_processes", lambda num_runs: min(3, num_runs))
    pool = forked.ProcessPoolExecutor
    monkeypatch.setattr(
        forked, "ProcessPoolExecutor", lambda *a, **k: measuring.append(a) or pool(*a, **k)
    )
    together = analyse(runs)
    assert measuring == [(3,)]
    assert as_json(together) == as_json(alone)


def test_many_runs_are_measured_on_all_cores_and_few_or_beside_threads_are_not(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert forked._processes(forked.FEW) == 1
    assert forked._processes(forked.FEW + 1) == 3
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert forked._processes(forked.FEW + 1) == 1
