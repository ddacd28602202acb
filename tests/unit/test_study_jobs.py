"""One job of a study: done once, gone on with, what is left out. Its commands are stood in for."""

import fcntl
import json
from dataclasses import replace

import pytest

from sce.errors import InputError, NoHeads
from sce.studies import jobs
from sce.studies.jobs import forget_failure, is_done, run_job, state_file, state_of
from sce.studies.launch import Launcher, launch
from sce.studies.plan import Command, Job

TUNED = Job(
    name="a",
    stage=2,
    task="mdqa",
    kind="synthetic",
    commands=(
        Command("train", (), "runs/a"),
        Command("intervene", (), "patch/a", optional=True),
    ),
    setting="high",
    seed=0,
    folder="runs/a",
)


@pytest.fixture
def ends(monkeypatch):
    """Program -> (exit code, last line), to be set; and what was executed."""
    told, executed = {}, []

    def execute(folder, command, log, lock):
        executed.append(command.program)
        code, line = told.get(command.program, (0, "well"))
        with log.open("a") as stream:
            stream.write(f"{line}\n")
        return code

    monkeypatch.setattr(jobs, "_execute", execute)
    return told, executed


def run(folder, **options):
    run_job(folder, TUNED, **{"keep_checkpoints": False, **options})
    return state_of(folder, TUNED)


def refusal() -> str:
    return f"sce: {NoHeads('sets=intersection is empty')}"


def test_a_patch_that_has_no_heads_is_left_out_and_the_job_is_done(ends, tmp_path):
    told, executed = ends
    told["intervene"] = (2, refusal())
    state = run(tmp_path)
    assert (state["exit_code"], state["left_out"]) == (0, [refusal()])
    run(tmp_path)
    assert executed == ["train", "intervene"]  # and it is not tried again


@pytest.mark.parametrize("end", [(2, "sce: target_scores: truncated"), (1, refusal()), (1, "bug")])
def test_any_other_failure_of_a_patch_is_one_and_is_tried_again(ends, tmp_path, end):
    told, executed = ends
    told["intervene"] = end
    state = run(tmp_path)
    assert (state["exit_code"], state["error"], state["left_out"]) == (*end, [])
    told.clear()
    assert run(tmp_path)["exit_code"] == 0
    assert executed == ["train", "intervene", "intervene"]


def test_what_was_left_out_is_still_known_after_a_later_failure(ends, tmp_path):
    told, _ = ends
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.patch.done").write_text(refusal())
    told["train"] = (1, "out of memory")
    assert run(tmp_path)["exit_code"] == 1
    told.clear()
    assert run(tmp_path)["left_out"] == [refusal()]


def test_two_interventions_of_a_job_are_each_done_once(ends, tmp_path):
    told, executed = ends
    knockout = Command("intervene", (), "knockout/a")
    both = replace(TUNED, commands=(TUNED.commands[0], knockout, TUNED.commands[1]))
    told["intervene"] = (1, "out of memory")
    run_job(tmp_path, both, keep_checkpoints=False)
    told.clear()
    run_job(tmp_path, both, keep_checkpoints=False)
    assert executed == ["train", "intervene", "intervene", "intervene"]


@pytest.mark.parametrize("kept", [False, True])
def test_marks_and_checkpoints_go_when_a_job_is_done(ends, tmp_path, kept):
    checkpoints = tmp_path / "runs" / "a" / "checkpoints"
    checkpoints.mkdir(parents=True)
    run(tmp_path, keep_checkpoints=kept)
    assert checkpoints.exists() == kept
    assert not list((tmp_path / "jobs").glob("*.done"))


def test_what_a_kill_left_of_a_job_that_is_done_goes_when_the_study_goes_on(ends, tmp_path):
    run(tmp_path)
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "jobs" / "a.train.done").touch()
    launch(tmp_path, [TUNED], Launcher("basic"), lambda: "")
    assert not (tmp_path / "runs" / "a" / "checkpoints").exists()
    assert not list((tmp_path / "jobs").glob("*.done"))


def test_checkpoints_that_were_kept_stay_when_the_study_is_run_again(ends, tmp_path):
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    run(tmp_path, keep_checkpoints=True)
    launch(tmp_path, [TUNED], Launcher("basic"), lambda: "")
    assert (tmp_path / "runs" / "a" / "checkpoints").exists()


def test_a_failure_is_forgotten_before_a_job_is_run_again_and_an_end_is_not(ends, tmp_path):
    told, _ = ends
    told["train"] = (1, "out of memory")
    run(tmp_path)
    forget_failure(tmp_path, TUNED)
    assert state_of(tmp_path, TUNED) is None
    told.clear()
    run(tmp_path)
    forget_failure(tmp_path, TUNED)
    assert is_done(tmp_path, TUNED)


def test_the_end_of_a_job_that_another_process_is_at_is_left_to_it(ends, tmp_path):
    told, _ = ends
    told["train"] = (1, "out of memory")
    run(tmp_path)
    with (tmp_path / "jobs" / "a.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forget_failure(tmp_path, TUNED)
        assert state_of(tmp_path, TUNED)["exit_code"] == 1


@pytest.mark.parametrize("text", ["", '{"exit_code": 0', json.dumps({"exit_code": None}), "[]"])
def test_a_torn_end_of_a_job_is_named_with_what_to_delete(tmp_path, text):
    (tmp_path / "jobs").mkdir()
    state_file(tmp_path, TUNED).write_text(text)
    with pytest.raises(InputError, match=r"jobs/a\.json: .*delete it and .*runs/a: the job is run"):
        state_of(tmp_path, TUNED)
