"""What of a study's report goes to W&B, and that a study which is run again has one run of it."""

import json
import subprocess
import sys

from fake_wandb import wandb_alone

from sce.studies.report import typed_table, write_report
from study_runs import Planted, World, write_study


def records(file) -> list[dict]:
    """Of an offline run, as `wandb leet inspect` reads them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_figures_tables_rho_and_page_are_one_run_however_often_a_study_is_run(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    world = World(examples=4, layers=4, heads=3, num_untuned=2, num_learned=3)
    study = write_study(tmp_path / "s", [world], Planted(num_settings=9, seeds=(0,)))
    (study / "jobs").mkdir()
    for folder in (study / "runs").iterdir():
        (study / "jobs" / f"{folder.name}.train.done").touch()
    with wandb_alone(monkeypatch, tmp_path / "home"):  # without a key: offline
        for _ in range(2):
            write_report(study, "mine", "wandb")
    files = sorted((study / "report" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # one id
    for file in files:
        kept = records(file)
        rows = [each["history"]["item"] for each in kept if each["type"] == "history"]
        logged = {name.partition(".")[0] for row in rows for name in row}
        assert {"study/mdqa/recall_f1_spearman", "study/mdqa/recall_f1_n"} <= logged
        for folder, ending in (("figures", "png"), ("tables", "csv")):
            drawn = {each.stem for each in (study / "report" / folder).glob(f"*.{ending}")}
            assert drawn
            assert {f"study/{stem}" for stem in drawn} <= logged
        artifacts = {each["artifact"]["name"] for each in kept if each["type"] == "artifact"}
        assert "mine-report" in artifacts
    (file, *_) = (study / "report" / "wandb").glob("offline-run-*/files/media/table/study/runs_*")
    table = json.loads(file.read_text("utf-8"))
    values = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert all(isinstance(row["f1"], float) for row in values)
    assert {row["task"] for row in values} == {"mdqa"}


def test_numbers_of_a_table_are_numbers_and_an_empty_one_has_its_columns(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("name,f1,step,note\na,0.5,3,\nb,,4,\n")
    assert typed_table(file) == (
        ["name", "f1", "step", "note"],
        [["a", 0.5, 3.0, ""], ["b", None, 4.0, ""]],
    )
    file.write_text("name,f1\n")
    assert typed_table(file) == (["name", "f1"], [])
