"""Real processes: Lightning's own launcher with a signal half way, and torchrun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs import TINY
from sce.records import read_jsonl
from strategies import column

DISTRIBUTED = ["trainer.devices=2", "trainer.accelerator=cpu", "data.concept=real"]
LIMIT_S = 240


def command(model: Path, *overrides: str) -> list[str]:
    return ["sce.train", *TINY, f"model.name_or_path={model}", *DISTRIBUTED, *overrides]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT", "SCE_RUN_DIR")
    kept = {k: v for k, v in os.environ.items() if not k.endswith(names)}
    return {**kept, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_both_processes_and_the_run_goes_on(tiny_folder, tmp_path, environment, name):
    """Ctrl-C to rank 0 alone, and SIGTERM to the whole group with those that read batches ahead."""
    options = ("trainer=ddp", "trainer.max_steps=2000", "save_every=1", "run_dir=mine")
    options = (*options, f"batch.workers={int(name == 'SIGTERM')}")
    process = subprocess.Popen(
        [sys.executable, "-m", *command(tiny_folder, *options)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoint, end = tmp_path / "mine" / "checkpoints" / "last.ckpt", time.monotonic() + LIMIT_S
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    number = getattr(signal, name)
    (os.kill if name == "SIGINT" else os.killpg)(process.pid, number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number, errors
    assert f"stopped by {name} at step" in errors and "Traceback" not in errors
    import torch

    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 1 <= step < 2000
    assert all(row["step"] <= step for row in read_jsonl(tmp_path / "mine" / "records.jsonl"))
    more = (*options[:1], f"trainer.max_steps={step + 1}", *options[2:], "resume=true")
    done = subprocess.run(
        [sys.executable, "-m", *command(tiny_folder, *more)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_jsonl(tmp_path / "mine" / "records.jsonl")[-1]["step"] == step + 1


def test_nothing_is_lost_of_a_run_that_was_killed_and_every_point_is_that_of_a_whole_one(
    tiny_folder, tmp_path, environment
):
    """No handler runs at kill -9: what was logged is on disk by then."""

    def run(*more: str) -> subprocess.Popen:
        options = ["sce.train", *TINY, f"model.name_or_path={tiny_folder}", "logger=csv", *more]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-m", *options], env=environment, **quiet)

    assert run("run_dir=whole", "trainer.max_steps=6").wait(LIMIT_S) == 0
    process, end = run("run_dir=mine", "trainer.max_steps=6"), time.monotonic() + LIMIT_S
    last = tmp_path / "mine" / "records.jsonl"
    while not last.is_file() or [row["step"] for row in read_jsonl(last)][-1:] != [4]:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    whole, mine = tmp_path / "whole", tmp_path / "mine"
    before = column(mine, "train/loss")
    assert set(before) >= {1, 2, 3, 4}
    assert run("run_dir=mine", "trainer.max_steps=6", "resume=true").wait(LIMIT_S) == 0
    for name in ("train/loss", "train/learning_rate", "val/answer_nll", "val/f1"):
        assert column(mine, name) == column(whole, name)
    assert before.items() <= column(whole, "train/loss").items()


def test_torchrun_writes_to_one_folder(tiny_folder, tmp_path, environment):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=2", "-m"]
    (tmp_path / "runs" / "mdqa-real-real-seed0").mkdir(parents=True)  # so rank 0 numbers on
    done = subprocess.run(
        [*torchrun, *command(tiny_folder, "trainer=fsdp", "trainer.max_steps=2")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir() if any(path.iterdir())] == [
        "mdqa-real-real-seed0-2"
    ]
    run_dir = tmp_path / "runs" / "mdqa-real-real-seed0-2"
    assert [row["step"] for row in read_jsonl(run_dir / "records.jsonl")] == [0, 2]
    assert (run_dir / "adapter" / "adapter_model.safetensors").is_file()
