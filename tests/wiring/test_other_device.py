"""Every command computes on the device it is given: one that is not the CPU, and refuses to mix."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]
TOLERANCE = 0.02
"""The CPU has a fused attention, the other device its parts; large weights widen what they round
differently. Scores that count copies are shares of a few tokens."""


@pytest.fixture(scope="module")
def folder(peaky_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    found = subprocess.run(
        [sys.executable, TESTS / "commands_elsewhere.py", peaky_folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return folder


def numbers(file: Path) -> list[float]:
    """Of a table or arrays, without times and memory."""
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            kinds = [arrays[name] for name in sorted(arrays) if arrays[name].dtype.kind in "fiub"]
            return [float(number) for array in kinds for number in array.ravel()]
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    cells = [cell for row in rows for name, cell in row.items() if not name.startswith("perf/")]
    return [float(cell) for cell in cells if re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "num_files"),
    [
        ("run", 5),  # two tables of metrics, heads at three steps
        ("several", 3),
        ("full", 3),
        ("scores", 6),
        ("knockout", 1),
        ("patch", 1),
        ("baselines", 1),
    ],
)
def test_a_command_finds_what_it_finds_on_the_cpu(folder, command, num_files):
    files = [
        sorted(
            path.relative_to(folder / place)
            for path in (folder / place / command).rglob("*")
            if path.suffix in (".csv", ".npz")
        )
        for place in ("cpu", "elsewhere")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == num_files
    for file in files[0]:
        first, second = (numbers(folder / place / file) for place in ("cpu", "elsewhere"))
        assert first
        np.testing.assert_allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(file))
