"""python -m sce.analysis: exit codes, files, what it prints, what it imports, how long it takes."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import altair as alt
import pytest

from sce.analysis.__main__ import main
from sce.analysis.charts.curves import OVER
from sce.analysis.charts.figure import Figure, Panel
from sce.analysis.charts.files import figures, save_figures
from sce.analysis.charts.style import heading
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
    assert findings["schema"] == "sce.findings/2"
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
    drawn = figures(found)
    wanted = "heads-and-f1 rho rho-over-tau rho-over-k over-tau over-k maps gained-and-lost layers"
    wanted += " learning predictors knockout patching baselines"
    wanted += " overlap-recall overlap-jaccard overlap-cosine"
    expected = {(0, task, name) for task in ("mdqa", "musique") for name in wanted.split()}
    assert set(drawn) == expected | {(0, None, "rho")}
    for figure in drawn.values():
        alt.Chart.from_dict(json.loads(json.dumps(figure.to_dict())), validate=True)


def test_figures_hold_ceiling_chance_and_rho_with_n(found):
    drawn = json.dumps(figures(found)[0, "mdqa", "heads-and-f1"].to_dict())
    (task, _) = found.groups[0].tasks
    for line in (task.ceiling["recall"].value, task.nulls["recall"].value):
        assert json.dumps({"at": line}) in drawn
    assert "n = 9 (|rho|" in drawn


def test_every_share_over_tau_and_k_has_its_chance_line(found):
    drawn = figures(found)
    for task in found.groups[0].tasks:
        for by in ("tau", "k"):
            panels = drawn[0, task.task, f"over-{by}"].panels
            assert len(panels) == len(OVER)
            for panel in panels:
                dashes = [layer["mark"].get("strokeDash") for layer in panel.spec["layer"]]
                assert [2, 2] in dashes
            curve = task.runs[0].curve(by)
            for name in OVER:
                assert any(curve.measures[f"{name}_null_layer"])


def test_a_chance_line_goes_on_where_one_setting_has_no_heads_left(found):
    task = found.groups[0].tasks[0]
    longest = 0.0
    for run in task.runs:
        if run.kind == "synthetic":
            values = run.over_tau.measures["precision_null_layer"]
            known = [at for at, v in zip(run.over_tau.at, values, strict=True) if v is not None]
            longest = max(longest, *known)
    panel = figures(found)[0, "mdqa", "over-tau"].panels[OVER.index("precision")]
    dashed = [
        layer["data"]["name"]
        for layer in panel.spec["layer"]
        if layer["mark"].get("strokeDash") == [2, 2]
    ]
    rows = [row for name in dashed for row in panel.datasets[name]]
    assert max(row["at"] for row in rows) == longest


def test_a_file_holds_the_first_panels_and_says_how_many_are_left_out():
    chart = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q")
    panels = [Panel([chart], 80, 60, heading(str(number))) for number in range(7)]
    figure = Figure("title", ["said"], panels, columns=2, most=5, rest="{} are not shown.")
    spec = figure.to_dict()
    assert [[p["title"]["text"] for p in row["hconcat"]] for row in spec["vconcat"]] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert spec["title"]["subtitle"] == ["said", "2 are not shown."]
    assert len(figure.panels) == 7


def test_a_single_plot_keeps_its_own_title_below_that_of_the_figure():
    chart = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q")
    plain = Figure("title", [], [Panel([chart], 80, 60)]).to_dict()
    assert "vconcat" not in plain
    assert plain["title"]["text"] == "title"
    spec = Figure("title", [], [Panel([chart], 80, 60, heading("own"))]).to_dict()
    assert spec["title"]["text"] == "title"
    assert spec["vconcat"][0]["hconcat"][0]["title"]["text"] == "own"


def test_files_of_several_groups_and_of_all_tasks_have_names_of_their_own(found, monkeypatch):
    names = []
    monkeypatch.setattr(
        "sce.analysis.charts.files.render",
        lambda specs, version: names.extend(f.name for f in specs),
    )
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *args, **kwargs: None)
    save_figures(found, figures(found), Path("nowhere"))
    assert {"pooled-rho", "mdqa-maps", "musique-maps"} <= set(names)
    names.clear()
    twice = replace(found, groups=[found.groups[0], found.groups[0]])
    save_figures(twice, figures(twice), Path("nowhere"))
    assert {"group1-pooled-rho", "group1-mdqa-maps", "group2-mdqa-maps"} <= set(names)


def test_figures_are_written_as_svg_pdf_and_png(tmp_path):
    planted = Planted(num_settings=3, seeds=(0,))
    one = analyse(write_runs(tmp_path / "runs", WORLD, planted))
    files = save_figures(one, figures(one), tmp_path / "figures")
    assert "mdqa-maps.svg" in [file.name for file in files]
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
    assert "left out (1 of 4 runs, 2 things in all)" in printed
    assert f"{folders[0]}/records.jsonl: line 1" in printed
    assert read(tmp_path / "out" / "tables" / "skipped.csv")[0]["run"] == folders[0].name


def test_nothing_of_an_earlier_analysis_stays_beside_this_one(tmp_path):
    write_runs(tmp_path / "runs", WORLD, Planted(num_settings=2, seeds=(0,)))
    out = tmp_path / "out"
    command = [str(tmp_path / "runs"), "--out", str(out), "--no-figures"]
    own = ["tables/interventions.csv", "figures/musique-maps.png", "index.html", "notes.txt"]
    for file in map(out.joinpath, own):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of an earlier one, or the user's")
    assert main(command) == 0
    assert all((out / name).exists() for name in own)  # no analysis has been here yet
    assert main(command) == 0
    assert [name for name in own if (out / name).exists()] == ["notes.txt"]
    assert (out / "tables" / "runs.csv").exists()


def test_nothing_heavy_is_imported():
    heavy = "torch transformers lightning hydra omegaconf wandb peft pandas"
    code = f"""
import sys, sce.analysis.study, sce.analysis.tables, sce.analysis.summary, sce.analysis.__main__
import sce.analysis.charts.files
print([name for name in "{heavy}".split() if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
