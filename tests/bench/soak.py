"""Does a long run's memory grow? Trains with validations, checkpoints and W&B offline, and watches.

    python tests/bench/soak.py [--minutes 30] [--json OUT] [overrides of sce.train ...]

The run is stopped by SIGTERM when its time is up. Resident memory of the process (and of its
children) is read every few seconds. Readings before a third of the validations were done, in which
caches fill, are left out, however long they took; through the rest goes the line of median slope
(Theil and Sen, which a few odd readings do not turn). Exit 1 if the run failed or if memory would
grow by over 5% an hour.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import machine
import numpy as np
import psutil
from scipy.stats import theilslopes

POLL_S = 5.0
MOST_AN_HOUR = 0.05
"""Share of its memory that a run may grow by in an hour."""
RUN = (
    *("trainer.max_steps=100000", "val_every=4", "save_every=2", "logger=wandb", "reference=none"),
    *("data.num_val=8", "data.num_reference=4", "data.num_documents=2", "max_new_tokens=8"),
)


def soak(minutes: float, overrides: list[str], folder: Path) -> dict[str, Any]:
    """What became of the run, and its memory over time, in GiB."""
    run_dir = folder / "run"
    command = [sys.executable, "-m", "sce.train", *RUN, *overrides, f"run_dir={run_dir}"]
    started, seconds, gib = time.monotonic(), [], []
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        while run.poll() is None and time.monotonic() - started < 60 * minutes:
            seconds.append(time.monotonic() - started)
            gib.append(_resident(run.pid) / 2**30)
            time.sleep(POLL_S)
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)
        code = run.wait()
    rows = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    begun = time.time() - (time.monotonic() - started)
    stamps = [datetime.fromisoformat(row["time"]).timestamp() - begun for row in rows]
    return {
        "exit_code": code,
        "steps": rows[-1]["step"],
        "validations": len(rows),
        "settled_s": stamps[len(stamps) // 3],
        "seconds": seconds,
        "gib": gib,
    }


def _resident(pid: int) -> int:
    """Bytes of a process and its children; shared pages count for each."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in family)
    except psutil.NoSuchProcess:
        return 0


def growth(seconds: list[float], gib: list[float], settled_s: float) -> dict[str, float]:
    """GiB an hour once it has settled, with a 95% interval, and what stands beside it."""
    late = np.array(seconds) >= settled_s
    hours, kept = np.array(seconds)[late] / 3600, np.array(gib)[late]
    slope, _, low, high = (float(value) for value in theilslopes(kept, hours, 0.95))
    middle = float(np.median(kept))
    return {
        "gib_an_hour": slope,
        "low": low,
        "high": high,
        "median_gib": middle,
        "share_an_hour": slope / middle,
        "first_gib": float(np.median(kept[: max(1, len(kept) // 10)])),
        "last_gib": float(np.median(kept[-max(1, len(kept) // 10) :])),
        "peak_gib": max(gib),
        "readings": len(kept),
    }


def main() -> int:
    """Soak, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", type=Path)
    options, overrides = parser.parse_known_args()
    print(json.dumps(machine.machine()))
    with tempfile.TemporaryDirectory() as folder:
        found = soak(options.minutes, overrides, Path(folder))
    found |= growth(found["seconds"], found["gib"], found["settled_s"])
    shown = {k: v for k, v in found.items() if k not in ("seconds", "gib")}
    print(json.dumps(shown, indent=1))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.machine(), **found}))
    stopped = found["exit_code"] == 128 + signal.SIGTERM
    return 0 if stopped and found["share_an_hour"] <= MOST_AN_HOUR else 1


if __name__ == "__main__":
    sys.exit(main())
