"""How the commands of a job are run, with programs stood in for: resumed, killed, waited for."""

import fcntl
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sce.studies import jobs
from sce.studies.jobs import run_job, state_of
from sce.studies.plan import Command, Job

TRAIN = Command("train", ("seed=3",), "runs/a")
PATCH = Command("intervene", ("method=patch",), "patch/a")
JOB = Job("a", 2, "mdqa", "synthetic", (TRAIN, PATCH), "high", 0, "runs/a")
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
said = Path(os.environ["SAID"])
def say(text):
    with said.open("a") as stream:
        stream.write(text + "\\n")
say(" ".join(["begin", Path(__file__).stem, *sys.argv[1:]]))
while Path(os.environ["WAITS"]).exists():
    time.sleep(0.02)
say("end")
print("last words")
code = int(os.environ.get("CODE", 0))
if code < 0:
    if code != -9:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What the programs wrote down; they go on when the file `waits` is not there."""
    programs = tmp_path / "programs"
    (programs / "sce").mkdir(parents=True)
    (programs / "sce" / "__init__.py").touch()
    for name in ("train", "intervene"):
        (programs / "sce" / f"{name}.py").write_text(PROGRAM)
    monkeypatch.setattr(jobs, "started_in", lambda folder: programs)
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.setenv("WAITS", str(tmp_path / "waits"))
    (tmp_path / "said").touch()
    return lambda: (tmp_path / "said").read_text().splitlines()


def study(tmp_path) -> Path:
    folder = tmp_path / "s"
    folder.mkdir(exist_ok=True)
    return folder


def test_the_commands_of_a_job_are_run_in_order(said, tmp_path):
    run_job(study(tmp_path), JOB, keep_checkpoints=False)
    assert said() == ["begin train seed=3", "end", "begin intervene method=patch", "end"]
    assert state_of(study(tmp_path), JOB)["exit_code"] == 0
    assert "-m sce.train seed=3\nlast words\n" in (tmp_path / "s" / "jobs" / "a.log").read_text()


def test_a_run_that_began_is_gone_on_with_and_what_is_left_of_the_rest_goes(said, tmp_path):
    folder = study(tmp_path)
    for half in ("runs/a/config.yaml", "runs/a/records.jsonl", "patch/a/table.csv"):
        (folder / half).parent.mkdir(parents=True, exist_ok=True)
        (folder / half).touch()
    run_job(folder, JOB, keep_checkpoints=False)
    assert said()[0] == "begin train seed=3 resume=true"
    assert (folder / "runs/a/records.jsonl").exists()
    assert not (folder / "patch/a").exists()


def test_a_folder_of_a_run_that_never_began_is_taken_away(said, tmp_path):
    folder = study(tmp_path)
    (folder / "runs/a/figures").mkdir(parents=True)
    run_job(folder, JOB, keep_checkpoints=False)
    assert said()[0] == "begin train seed=3"
    assert not (folder / "runs/a").exists()


@pytest.mark.parametrize(
    ("code", "error"), [(2, "last words"), (1, "last words"), (-9, "killed by SIGKILL")]
)
def test_how_a_command_failed_is_written_down_and_the_next_is_not_run(
    said, tmp_path, monkeypatch, code, error
):
    monkeypatch.setenv("CODE", str(code))
    run_job(study(tmp_path), JOB, keep_checkpoints=False)
    state = state_of(study(tmp_path), JOB)
    assert (state["exit_code"], state["error"]) == (code, error)
    assert said() == ["begin train seed=3", "end"]


@pytest.mark.parametrize("code", [143, 130, -15, -2, 128 + signal.SIGUSR1])
def test_a_run_that_was_told_to_stop_has_not_failed(said, tmp_path, monkeypatch, code):
    monkeypatch.setenv("CODE", str(code))
    run_job(study(tmp_path), JOB, keep_checkpoints=False)
    assert state_of(study(tmp_path), JOB) is None


@pytest.fixture
def elsewhere(said, tmp_path):
    """Another process that runs the job, once its first command has begun and waits."""
    (tmp_path / "waits").touch()

    def work():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        run_job(study(tmp_path), JOB, keep_checkpoints=False)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    until(lambda: said() == ["begin train seed=3"], process)
    yield process
    (tmp_path / "waits").unlink(missing_ok=True)
    process.kill()
    process.join()


def until(true, process) -> None:
    for _ in range(3000):
        if true():
            return
        assert process.is_alive()
        time.sleep(0.02)  # another process is waited for
    raise AssertionError("it never happened")


def test_a_run_whose_study_was_killed_is_waited_for_and_never_has_another_beside_it(
    elsewhere, said, tmp_path, monkeypatch
):
    """It lives on, and holds the job's lock by the file it was handed."""
    os.kill(elsewhere.pid, signal.SIGKILL)
    elsewhere.join()
    real, held = fcntl.flock, []

    def flock(lock, how):
        try:
            real(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(said())
            (tmp_path / "waits").unlink()
            real(lock, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    run_job(study(tmp_path), JOB, keep_checkpoints=False)
    assert held == [["begin train seed=3"]]
    # Nobody was left to write down that it had ended well, so it is gone on with.
    lines = ["begin train seed=3", "end", "begin train seed=3", "end"]
    assert said() == [*lines, "begin intervene method=patch", "end"]


def test_a_study_that_is_told_to_stop_stops_its_run(elsewhere, said, tmp_path):
    os.kill(elsewhere.pid, signal.SIGTERM)
    elsewhere.join(30)
    assert elsewhere.exitcode == 143
    assert said() == ["begin train seed=3"]  # it was ended, and did not end
    (tmp_path / "waits").unlink()
    run_job(study(tmp_path), JOB, keep_checkpoints=False)
    assert state_of(study(tmp_path), JOB)["exit_code"] == 0
