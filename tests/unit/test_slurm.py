"""conf/launch/slurm.sbatch, with SLURM's programs stood in for: what is started, and what again."""

import os
import subprocess
from pathlib import Path

import pytest

from sce.config import CONF

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > started
mkdir -p "$RUN_DIR"
touch "$RUN_DIR/config.yaml"
printf '%s\\n' "$LAST_LINE" >> "$RUN_DIR/log.txt"
exit "$CODE"
"""
SCONTROL = """#!/bin/bash
printf '%s\\n' "$*" > requeued
"""


@pytest.fixture
def submit(tmp_path):
    """Runs the script as SLURM would, in a folder with an environment of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()

    def submit(last_line: str, code: int, *overrides: str) -> tuple[int, list[str], str | None]:
        """Its exit code, what srun was told, and what scontrol was."""
        slurm = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77"}
        own = {"PATH": f"{programs}:{os.environ['PATH']}", "RUN_DIR": "runs/long"}
        given = {"LAST_LINE": last_line, "CODE": str(code)}
        done = subprocess.run(
            ["bash", str(CONF / "launch" / "slurm.sbatch"), *overrides],
            cwd=tmp_path,
            env={**os.environ, **slurm, **own, **given},
            capture_output=True,
            text=True,
        )
        started, requeued = tmp_path / "started", tmp_path / "requeued"
        told = started.read_text().splitlines() if started.is_file() else []
        again = requeued.read_text().strip() if requeued.is_file() else None
        for file in (started, requeued):
            file.unlink(missing_ok=True)
        return done.returncode, told, again

    return submit


STOPPED = "stopped by SIGUSR1 at step 40; go on by resume=true"


def test_a_run_is_started_on_all_devices_and_gone_on_with_after_a_requeue(submit):
    code, told, again = submit(STOPPED, 138, "seed=3", "run_dir=runs/long")
    assert told[1:4] == ["python", "-m", "sce.train"]
    assert {"trainer.devices=8", "trainer.num_nodes=2", "resume=false", "seed=3"} <= set(told)
    assert (code, again) == (138, "requeue 77")
    code, told, again = submit("done", 0, "seed=3", "run_dir=runs/long")
    assert "resume=true" in told
    assert (code, again) == (0, None)


@pytest.mark.parametrize("line", ["out of memory", "", "stopped by SIGTERM at step 40"])
def test_what_ended_in_another_way_is_not_queued_again(submit, line):
    code, _, again = submit(line, 1, "run_dir=runs/long")
    assert (code, again) == (1, None)


def test_a_start_that_wrote_nothing_is_not_taken_for_the_stop_before_it(submit, tmp_path):
    submit(STOPPED, 138, "run_dir=runs/long")
    (tmp_path / "bin" / "srun").write_text("#!/bin/bash\nexit 1\n")
    assert submit("", 1, "run_dir=runs/long")[::2] == (1, None)


def test_without_a_folder_nothing_is_started(submit):
    code, told, _ = submit("", 0, "seed=3")
    assert code != 0
    assert told == []


def test_time_is_left_for_a_checkpoint_and_a_requeue_is_allowed():
    lines = Path(CONF / "launch" / "slurm.sbatch").read_text().splitlines()
    assert "#SBATCH --signal=USR1@600" in lines
    assert "#SBATCH --requeue" in lines
