"""A study of a tiny model, from nothing to its report, by every launcher, killed and not."""

import contextlib
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

pytestmark = pytest.mark.slow
RUNS = ("mdqa-reference-seed100", "mdqa-reference-seed101", "mdqa-real-seed0")
CELLS = ("mdqa-high-high-seed0", "mdqa-symbolic-seed0")
KILLS = 10


def command(folder: Path, options: Path, *more: str) -> list[str]:
    named = [f"hydra.searchpath=[file://{options}]", "study=tiny", f"dir={folder}", "logger=none"]
    return [sys.executable, "-m", "sce.study", *named, *more]


def environment(folder: Path) -> dict[str, str]:
    """Of one thread, so that every launcher's runs round alike; data is built anew."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "SCE_CACHE": str(folder.parent / "cache")}


def run(folder: Path, options: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """All it says is in `stdout`."""
    started = command(folder, options, *more)
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(started, text=True, env=environment(folder), **out)


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


def test_the_plan_comes_first_and_then_how_each_job_ended(finished):
    _, said = finished
    lines = said.splitlines()
    done = [n for n, line in enumerate(lines) if line.startswith("done ")]
    (plan,) = (n for n, line in enumerate(lines) if "9 of 9 jobs to run: about" in line)
    assert "GiB of disk" in lines[plan]
    assert len(done) == 9
    assert plan < done[0]
    assert "0 of 9 left" in lines[done[-1]]


def test_a_finished_study_is_not_run_again_and_says_the_same(finished, options):
    folder, _ = finished
    before = {f: f.stat().st_mtime_ns for f in (folder / "runs").rglob("*") if f.is_file()}
    found = findings(folder)
    again = run(folder, options)
    assert again.returncode == 0
    assert "0 of 9 jobs to run" in again.stdout
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert findings(folder) == found


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
    more += ["study.reference_seeds=[100]", "~study.tasks.mdqa.settings.symbolic"]
    if launcher == "joblib":
        more.append("launcher_options={n_jobs: 2}")
    done = run(tmp_path / "s", options, *more)
    assert done.returncode == 0, done.stdout[-2000:]
    own_files = list((tmp_path / "s" / "launch").glob(".submitit/*"))
    assert bool(own_files) == (launcher == "submitit_local")
    for name in (RUNS[0], RUNS[2], CELLS[0]):
        own, other = (
            read_jsonl(f / "runs" / name / "records.jsonl") for f in (tmp_path / "s", finished[0])
        )
        for row, same in zip(own, other, strict=True):
            for fact in ("step", "concept", "seed", "train_sha256", "eval_sha256", "answer_nll"):
                assert row[fact] == same[fact]


def tables(folder: Path) -> dict[str, str]:
    files = sorted((folder / "report" / "tables").iterdir())
    assert files
    return {file.name: file.read_text().replace(str(folder), "") for file in files}


def changed(folder: Path) -> set[tuple[str, int]]:
    """What is there of a study that is at work."""
    found = set()
    for where, _, names in os.walk(folder):  # goes on where a folder vanishes
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # between the two looks
                found.add((f"{where}/{name}", Path(where, name).stat().st_size))
    return found


def killed_after(num_changes: int, folder: Path, options: Path) -> bool:
    """Start the study, and kill all of it once it has changed so much in its folder.

    False: it ended before.
    """
    process = subprocess.Popen(
        command(folder, options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(folder),
    )
    there, count = changed(folder), 0
    while count < num_changes:
        if process.poll() is not None:
            return False
        now = changed(folder)
        there, count = now, count + len(now - there)
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def test_killed_at_ten_random_times_the_report_is_that_of_a_study_nobody_disturbed(
    finished, options, tmp_path
):
    folder, rng = tmp_path / "s", random.Random(0)
    assert all(killed_after(rng.randint(1, 40), folder, options) for _ in range(KILLS))
    logs = "".join(file.read_text() for file in (folder / "jobs").glob("*.log"))
    assert "resume=true" in logs
    done = run(folder, options)
    assert done.returncode == 0, done.stdout[-2000:]
    assert findings(folder) == findings(finished[0])
    assert tables(folder) == tables(finished[0])
    for name in (*RUNS, *CELLS):
        steps = [row["step"] for row in read_jsonl(folder / "runs" / name / "records.jsonl")]
        assert steps == [0, 2, 4]
