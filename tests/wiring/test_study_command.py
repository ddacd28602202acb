"""python -m sce.study in this process, its jobs stood in for: what it refuses and tells."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

import sce.study
from runs import configured, study_options
from sce.config import CONF
from sce.errors import InputError
from sce.records import write_json
from sce.studies import report
from sce.studies.jobs import state_file
from sce.study_options import StudyConfig


@pytest.fixture(scope="module")
def options(peaky_folder, tmp_path_factory) -> Path:
    """Where study=tiny lies."""
    return study_options(tmp_path_factory.mktemp("conf"), peaky_folder)


@pytest.fixture
def run(options, tmp_path) -> Callable[..., Path]:
    """The command with overrides, in a folder of the test's."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*more: str) -> Path:
        named = [f"hydra.searchpath=[file://{options}]", "study=tiny", f"dir={tmp_path / 's'}"]
        given = [*named, "logger=none", *more]
        return sce.study.study(configured("study", StudyConfig, given, CONF / "studies"))

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def launched(monkeypatch) -> tuple[list[str], set[str]]:
    """Jobs that a launcher was given, and those of them that are to fail, by name."""
    names: list[str] = []
    failing: set[str] = set()

    def launch(folder, jobs, launcher, left):
        for job in jobs:
            names.append(job.name)
            end = (1, "out of memory") if job.name in failing else (0, None)
            state = {"exit_code": end[0], "seconds": 1.0, "error": end[1], "left_out": []}
            write_json(state_file(folder, job), state)

    monkeypatch.setattr(sce.study, "launch", launch)
    return names, failing


@pytest.fixture
def reported(monkeypatch) -> list[Path]:
    """Studies that a report was made of."""
    folders: list[Path] = []
    monkeypatch.setattr(report, "write_report", lambda folder, *more: folders.append(folder))
    return folders


def test_a_dry_run_tells_the_plan_and_makes_nothing(run, launched, tmp_path, caplog):
    with caplog.at_level("INFO", logger="sce"):
        run("dry_run=true")
    assert "9 of 9 jobs to run: about" in caplog.text
    assert not (tmp_path / "s").exists()
    assert launched[0] == []


def test_another_configuration_is_refused_with_the_difference(run, launched, reported):
    run()
    assert len(launched[0]) == 9
    with pytest.raises(InputError, match=r"study\.seeds is \[0\] there and \[5\] here"):
        run("study.seeds=[5]")
    assert len(launched[0]) == 9
    assert len(reported) == 1


def test_stages_come_one_after_the_other_and_then_the_report(run, launched, reported, tmp_path):
    run()
    names, _ = launched
    first = [name for name in names if "-reference-seed" in name]
    assert names[: len(first) + 1] == [*first, "mdqa-reference"]
    assert reported == [tmp_path / "s"]


def test_without_its_reference_a_task_has_no_further_runs(run, launched, monkeypatch):
    """There is nothing to report then, and what failed is the last thing that is said."""
    names, failing = launched
    failing.add("mdqa-reference-seed101")
    message = (
        r"1 of 9 jobs failed, and there is nothing to report: mdqa-reference-seed101, exit code 1: "
        r"out of memory .*; once that is mended the same command runs them alone"
    )
    with pytest.raises(InputError, match=message):
        run()
    assert set(names) == {"mdqa-reference-seed100", "mdqa-reference-seed101"}


def test_a_study_that_is_being_worked_on_is_left_alone(run, launched, reported, tmp_path):
    run()
    launched[0].clear()
    reported.clear()
    with (
        FileLock(tmp_path / "s" / "study.lock"),
        pytest.raises(InputError, match="is being worked on by another"),
    ):
        run()
    assert launched[0] == reported == []


def test_figures_that_could_not_be_drawn_are_found_before_the_first_run(
    run, launched, monkeypatch, tmp_path
):
    def missing():
        raise InputError("the report needs altair")

    monkeypatch.setattr(report, "require_report", missing)
    with pytest.raises(InputError, match="needs altair"):
        run()
    assert launched[0] == []
    assert not (tmp_path / "s").exists()
