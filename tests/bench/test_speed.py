"""The speed claims: every bench at full size, held to its aims: `make bench`, nothing else running.

Not part of the test suite: a number from a busy machine says nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


@pytest.mark.parametrize("name", ["training", "scoring", "growth", "report"])
def test_a_bench_meets_its_aims(name, tmp_path):
    script, out = Path(__file__).with_name(f"{name}.py"), tmp_path / f"{name}.json"
    subprocess.run([sys.executable, str(script), "--json", str(out)], check=True)
    missed = [aim for aim in json.loads(out.read_text())["aims"] if aim["met"] is not True]
    assert not missed
