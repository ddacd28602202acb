"""A study of a tiny model, from nothing to its report, through Hydra's launchers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runs import TINY, study_options
from sce.records import HeadScores, read_jsonl

pytestmark = pytest.mark.slow


def command(folder: Path, options: Path, *more: str) -> list[str]:
    named = [f"hydra.searchpath=[file://{options}]", "study=tiny", f"dir={folder}", "logger=none"]
    return [sys.executable, "-m", "sce.study", *named, *more]


@pytest.fixture(scope="module")
def options(peaky_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    return study_options(folder, peaky_folder)


def run(folder, options, *more):
    done = subprocess.run(command(folder, options, *more), capture_output=True, text=True)
    return done


def test_it(options, tmp_path):
    started = time.time()
    done = run(tmp_path / "s", options)
    print(done.stdout[-6000:], done.stderr[-3000:], time.time() - started)
    assert done.returncode == 0
    for f in sorted((tmp_path / "s").rglob("*")):
        if "checkpoints" not in str(f) and f.is_file() and "/runs/" not in str(f): print(f.relative_to(tmp_path), f.stat().st_size)
    assert 0
