"""python -m sce.analysis: exit codes, files, what it prints, what it imports, how long it takes."""

import csv
import json
import subprocess
import sys
import time

import pytest

from sce.analysis.__main__ import main
from sce.analysis.charts.files import figures, save_figures
from sce.analysis.study import analyse
from sce.analysis.tables import tables
from study_runs import Planted, Tuned, World, write_run, write_runs, write_study

WORLD = World(examples=6, num_own=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    worlds = [WORLD, World(seed=4, task="musique", examples=6)]
    return write_study(
        tmp_path_factory.mktemp("study"), worlds, Planted(num_settings=9, noise=0.03)
    )


@pytest.fixture(scope="module")
def found(study):
    return analyse([study])


def read(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_command_leaves_findings_and_tables_and_says_what_it_found(study, tmp_path, capsys):
    assert main([str(study), "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    printed = capsys.readouterr().out
    findings = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert findings["schema"] == "sce.findings/1"
    assert findings["study"] == "a-study"
    assert "mdqa: recall of the reference's heads goes with F1 beyond chance: rho " in printed
    assert "n = 9 synthetic, limited and mixed settings (18 runs)" in printed
    assert "could not have been shown" in printed
    assert "ceiling" in printed
    assert "Does recall learned say more of F1 than recall?" in printed
    assert "error of prediction" in printed
    names = {file.stem for file in (tmp_path / "out" / "tables").iterdir()}
    assert {"runs", "settings", "correlations", "heads", "overlaps", "interventions"} <= names


def test_every_number_of_a_table_has_n_and_bounds(study, tmp_path):
    main([str(study), "--out", str(tmp_path), "--no-figures"])
    for name in ("runs", "settings", "checkpoints"):
        for row in read(tmp_path / "tables" / f"{name}.csv"):
            for measure in ("recall", "cosine_learned", "f1"):
                assert {f"{measure}{end}" for end in ("", "_low", "_high", "_n")} <= row.keys()
                assert int(row[f"{measure}_n"]) >= 0
    rho = read(tmp_path / "tables" / "correlations.csv")[0]
    assert {"spearman_low", "spearman_high", "p_value", "n", "smallest_detectable"} <= rho.keys()
    told = read(tmp_path / "tables" / "heads.csv")
    assert {row["change"] for row in told} == {"gained", "kept"}


def test_tables_say_what_the_findings_say(found):
    table = tables(found)
    task = found.groups[0].tasks[0]
    first = next(row for row in table["runs"] if row["name"] == task.runs[0].name)
    assert first["recall"] == task.runs[0].last.measures["recall"].value
    assert len(table["overlaps"]) == sum(
        cell.value is not None
        for each in found.groups[0].tasks
        for overlap in each.overlaps
        for row in overlap.cells
        for cell in row
    )
    gained = [row for row in table["heads"] if row["run"] == task.runs[0].name]
    assert sum(row["change"] == "gained" for row in gained) == len(task.runs[0].gained)


def test_every_figure_is_a_valid_chart(found):
    names = set(figures(found))
    wanted = "heads-and-f1 rho rho-over-tau over-tau over-k maps gained-and-lost layers learning"
    wanted += (
        " predictors knockout patching baselines overlap-recall overlap-jaccard overlap-cosine"
    )
    expected = {f"{task}-{name}" for task in ("mdqa", "musique") for name in wanted.split()}
    assert names == expected | {"pooled-rho"}
    for chart in figures(found).values():
        chart.to_dict(validate=True)


def test_figures_hold_ceiling_chance_and_rho_with_n(found):
    drawn = json.dumps(figures(found)["mdqa-heads-and-f1"].to_dict(validate=False))
    (task, _) = found.groups[0].tasks
    for line in (task.ceiling["recall"].value, task.nulls["recall"].value):
        assert json.dumps({"at": line}) in drawn
    assert "n = 9 (|rho|" in drawn


def test_figures_are_written_as_svg_pdf_and_png(tmp_path):
    planted = Planted(num_settings=3, seeds=(0,))
    one = analyse(write_runs(tmp_path / "runs", WORLD, planted))
    files = save_figures(one, tmp_path / "figures")
    assert files
    for file in files:
        assert file.read_text().startswith("<svg")
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert file.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main([str(tmp_path / "none"), "--out", out, "--no-figures"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("sce: no completed run in ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    write_run(tmp_path / "run", WORLD, Tuned(0.5, 0.4))
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "file"), "--no-figures"]) == 2
    assert main([str(tmp_path / "run"), "--out", out, "--tau", "-1", "--no-figures"]) == 2


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "--out"]])
def test_arguments_that_are_missing_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_without_altair_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "altair"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("sce.analysis.charts")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    write_run(tmp_path / "run", WORLD, Tuned(0.5, 0.4))
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'sce[analysis]'" in capsys.readouterr().err
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--no-figures"]) == 0


def test_what_was_left_out_is_printed_and_counted(tmp_path, capsys):
    folders = write_runs(tmp_path / "runs", WORLD, Planted(num_settings=2, seeds=(0,)))
    (folders[0] / "records.jsonl").write_text("torn")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    printed = capsys.readouterr().out
    assert "left out" in printed
    assert f"{folders[0]}/records.jsonl: line 1" in printed
    assert read(tmp_path / "out" / "tables" / "skipped.csv")[0]["run"] == folders[0].name


def test_nothing_heavy_is_imported():
    heavy = "torch transformers lightning hydra omegaconf wandb peft pandas"
    code = f"""
import sys, sce.analysis.study, sce.analysis.tables, sce.analysis.summary, sce.analysis.__main__
import sce.analysis.charts.files
print([name for name in "{heavy}".split() if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_tenth_of_a_large_study_takes_a_tenth_of_its_time(tmp_path):
    """10 runs of 10 checkpoints of 1,024 heads; all of 100 runs are to take under 10 s."""
    world = World(layers=32, heads=32, examples=16)
    steps = tuple(range(0, 100, 10))
    for number in range(8):
        own = Tuned((number + 0.5) / 8, 0.3 + 0.04 * number, f"cell{number}", "high", steps=steps)
        write_run(tmp_path / f"run{number}", world, own)
    for seed in (100, 101):
        real = Tuned(1.0, 0.7, "real", "real", seed, steps=steps)
        write_run(tmp_path / f"real{seed}", world, real)
    started = time.process_time()
    analyse([tmp_path])
    assert time.process_time() - started < 10  # type checks at run time are on here
