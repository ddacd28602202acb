"""A study of a tiny model, from nothing to its report, by every launcher, killed and not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runs import study_options
from sce.records import HeadScores, read_jsonl
from sce.studies.folder import read_jobs
from sce.studies.launch import Launcher

pytestmark = pytest.mark.slow
RUNS = ("mdqa-reference-seed100", "mdqa-reference-seed101", "mdqa-real-seed0")
CELLS = ("mdqa-high-high-seed0", "mdqa-symbolic-seed0")
KILLS = 10


def command(folder: Path, options: Path, *more: str) -> list[str]:
    named = [f"hydra.searchpath=[file://{options}]", "study=tiny", f"dir={folder}", "logger=none"]
    return [sys.executable, "-m", "sce.study", *named, *more]


def run(folder: Path, options: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """All it says is in `stdout`."""
    started = command(folder, options, *more)
    return subprocess.run(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def options(peaky_folder, tmp_path_factory) -> Path:
    """Where study=tiny lies."""
    return study_options(tmp_path_factory.mktemp("conf"), peaky_folder)


@pytest.fixture(scope="module")
def finished(options, tmp_path_factory):
    """A study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    done = run(folder, options)
    assert done.returncode == 0, done.stdout[-2000:]
    return folder, done.stdout


def findings(folder: Path) -> dict:
    """What a report says, the names of its own folders left out."""
    text = (folder / "report" / "findings.json").read_text()
    return json.loads(text.replace(str(folder), "STUDY"))


def test_every_part_of_a_study_is_there(finished):
    folder, _ = finished
    for name in (*RUNS, *CELLS):
        rows = read_jsonl(folder / "runs" / name / "records.jsonl")
        assert [row["step"] for row in rows] == [0, 2, 4]
        assert not (folder / "runs" / name / "checkpoints").exists()
    for name in ("baselines/mdqa", "knockout/mdqa", *(f"patch/{cell}" for cell in CELLS)):
        result = json.loads((folder / name / "results.json").read_text())
        assert result["directions" if name.startswith("patch") else "rows"]
    assert len((folder / "looks" / "mdqa.jsonl").read_text().splitlines()) == 1
    assert list((folder / "report" / "figures").glob("*.svg"))


def test_the_reference_is_the_mean_of_runs_that_are_no_points(finished):
    folder, _ = finished
    reference = HeadScores.load(folder / "reference" / "mdqa.json")
    members = [
        HeadScores.load(folder / "runs" / name / "heads" / "step-000004.json").scores
        for name in RUNS[:2]
    ]
    assert reference.scores == pytest.approx((members[0] + members[1]) / 2, abs=1e-8)
    (task,) = findings(folder)["groups"][0]["tasks"]
    points = {s["setting"] for s in task["settings"]}
    assert points == {"real", "high-high", "symbolic", "untuned"}


def test_runs_share_their_step_0(finished):
    folder, _ = finished
    first = [read_jsonl(folder / "runs" / name / "records.jsonl")[0] for name in (*RUNS, *CELLS)]
    assert len({row["f1"] for row in first}) == 1
    logs = [(folder / "jobs" / f"{name}.log").read_text() for name in (*RUNS, *CELLS)]
    assert all("untuned=" in log for log in logs)


def test_the_plan_comes_first_and_progress_while_it_goes(finished):
    _, said = finished
    lines = said.splitlines()
    assert any("9 of 9 jobs to run: about" in line and "GiB of disk" in line for line in lines)
    done = [line for line in lines if line.startswith("done ")]
    assert len(done) == 9
    assert "0 of 9 left" in done[-1]


def test_a_finished_study_is_not_run_again_and_says_the_same(finished, options):
    folder, _ = finished
    before = {f: f.stat().st_mtime_ns for f in (folder / "runs").rglob("*") if f.is_file()}
    found = findings(folder)
    again = run(folder, options)
    assert again.returncode == 0
    assert "0 of 9 jobs to run" in again.stdout
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert findings(folder) == found


def test_a_dry_run_makes_nothing(options, tmp_path):
    done = run(tmp_path / "s", options, "dry_run=true")
    assert done.returncode == 0
    assert "9 of 9 jobs to run" in done.stdout
    assert not (tmp_path / "s").exists()


def test_another_configuration_is_refused_with_the_difference(finished, options):
    folder, _ = finished
    done = run(folder, options, "study.seeds=[5]")
    assert done.returncode == 2
    assert "study.seeds is [0] there and [5] here" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("sce: ")


def test_a_job_that_fails_is_named_the_others_go_on_and_it_alone_is_run_again(
    finished, options, tmp_path
):
    """One run cannot write its records, since a folder has their name."""
    folder = tmp_path / "s"
    shutil.copytree(finished[0], folder)
    for job in CELLS:
        (folder / "jobs" / f"{job}.json").unlink()
        shutil.rmtree(folder / "runs" / job)
        shutil.rmtree(folder / "patch" / job)
    broken = folder / "runs" / CELLS[0] / "records.jsonl"
    broken.mkdir(parents=True)
    (broken.parent / "config.yaml").touch()
    done = run(folder, options)
    assert done.returncode == 2
    assert f"1 of 9 jobs failed, and the report is without them: {CELLS[0]}" in done.stdout
    assert (folder / "runs" / CELLS[1] / "records.jsonl").is_file()
    broken.rmdir()
    assert "1 of 9 jobs to run" in run(folder, options, "dry_run=true").stdout


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_give_the_same_study(launcher, finished, options, tmp_path):
    left_out = ("baselines", "looks", "knockout", "patch")
    more = [f"launcher={launcher}", *(f"study.interventions.{name}=null" for name in left_out)]
    if launcher == "joblib":
        more.append("launcher_options={n_jobs: 2}")
    done = run(tmp_path / "s", options, *more)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in (*RUNS, *CELLS):
        own, other = (
            read_jsonl(f / "runs" / name / "records.jsonl") for f in (tmp_path / "s", finished[0])
        )
        for row, same in zip(own, other, strict=True):
            for fact in ("step", "concept", "seed", "train_sha256", "eval_sha256"):
                assert row[fact] == same[fact]
            # Launchers give a job other numbers of threads, which round otherwise.
            assert row["answer_nll"] == pytest.approx(same["answer_nll"], rel=1e-3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_whose_study_alone_was_killed_is_waited_for_and_not_run_beside_itself(
    number, options, tmp_path
):
    folder, job = tmp_path / "s", RUNS[0]
    process = subprocess.Popen(
        command(folder, options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not (folder / "runs" / job / "records.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        process.wait()
        launched = Launcher("basic").command(
            folder, [j for j in read_jobs(folder) if j.name == job]
        )
        subprocess.run(launched, check=True, capture_output=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if group_lives(process.pid) else None
    steps = [row["step"] for row in read_jsonl(folder / "runs" / job / "records.jsonl")]
    assert steps == [0, 2, 4]
    assert json.loads((folder / "jobs" / f"{job}.json").read_text())["exit_code"] == 0


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def tables(folder: Path) -> dict[str, str]:
    files = sorted((folder / "report" / "tables").iterdir())
    assert files
    return {file.name: file.read_text().replace(str(folder), "") for file in files}


def test_killed_at_ten_random_times_the_report_is_that_of_a_study_nobody_disturbed(
    finished, options, tmp_path
):
    folder, rng, hits = tmp_path / "s", random.Random(0), 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(folder, options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(1, 25))  # what is tested is the wall clock's randomness
        hits += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert hits > 1
    done = run(folder, options)
    assert done.returncode == 0, done.stdout[-2000:]
    assert findings(folder) == findings(finished[0])
    assert tables(folder) == tables(finished[0])
    for name in (*RUNS, *CELLS):
        steps = [row["step"] for row in read_jsonl(folder / "runs" / name / "records.jsonl")]
        assert steps == [0, 2, 4]
