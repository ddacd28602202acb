"""What docs/findings.md says of the studies that lie beside it is what their records say."""

import functools
import re
from pathlib import Path

import pytest

from sce.analysis.accuracy import points_of
from sce.analysis.study import analyse
from sce.records import HeadScores, read_jsonl
from sce.stats import cosine, paired_bootstrap, spearman

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
STUDIES = sorted((DOCS / "studies").iterdir())


def rows_told():
    """Cells of every table row that names a run, by the folder of its study (the title's word)."""
    study = ""
    for line in (DOCS / "findings.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            study = line.removeprefix("## ").split(":")[0].lower().replace(" ", "-")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and (DOCS / "studies" / study / "runs" / cells[0]).is_dir():
            yield study, cells


def told(row, name, digits):
    """A figure of a record with its interval; nothing for none."""
    sides = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
    if sides[0] is None:
        return ""
    value, low, high = (f"{side:.{digits}f}" for side in sides)
    return f"{value} [{low}, {high}]"


ROWS = list(rows_told())


@functools.cache
def analysed(study):
    return analyse([study if (study / "study.json").is_file() else study / "runs"])


@pytest.mark.parametrize(("study", "cells"), ROWS, ids=["/".join(c[:2]) for _, c in ROWS])
def test_a_row_of_a_table_is_that_of_the_run_s_records(study, cells):
    run, step, f1, recall, learned, nll = cells
    rows = read_jsonl(DOCS / "studies" / study / "runs" / run / "records.jsonl")
    (row,) = [row for row in rows if row["step"] == int(step.split()[0])]
    assert f1 == told(row, "f1", 3)
    for cell, name in ((recall, "recall"), (learned, "recall_learned")):
        assert cell.split(" (")[0] == told(row, name, 2), name
    assert nll == f"{row['answer_nll']:.2f}"


@pytest.mark.parametrize("study", [s for s in STUDIES if s.name.startswith("pilot")], ids=str)
def test_every_run_of_a_pilot_is_told_of(study):
    told = {cells[0] for name, cells in ROWS if name == study.name}
    assert told == {folder.name for folder in (study / "runs").iterdir()}


@pytest.mark.parametrize("study", STUDIES, ids=lambda folder: folder.name)
def test_a_study_that_is_kept_can_be_analysed_and_holds_no_text_and_no_path(study):
    found = analysed(study)
    assert sum(len(task.runs) for group in found.groups for task in group.tasks) > 1
    for file in study.rglob("*.json*"):
        text = file.read_text("utf-8")
        assert '"/' not in text and "../" not in text, file
        assert '"question"' not in text and '"text"' not in text, file


MEASURES = {"validation loss": "answer_nll"}


def grid():
    """What the analysis finds in the grid, and what is told of it."""
    (group,) = analysed(DOCS / "studies" / "nq-grid-1").groups
    return group, (DOCS / "findings.md").read_text("utf-8")


def test_rho_of_the_grid_is_what_the_analysis_finds():
    group, text = grid()
    rows = re.findall(
        r"^\| ([a-z ]+) \| (-?\d\S+ \[.*\]) \| (\S+) \| (\d+) \|$", text, re.MULTILINE
    )
    assert len(rows) == 5
    for measure, rho, p_value, n in rows:
        name = MEASURES.get(measure, measure.replace(" ", "_"))
        (each,) = [
            rho.found
            for rho in group.correlations
            if (rho.task, rho.measure, rho.points) == ("mdqa", name, "synthetic")
        ]
        sides = each.spearman, each.spearman_low, each.spearman_high
        assert rho == "{:.2f} [{:.2f}, {:.2f}]".format(*sides)
        assert (f"{each.p_value:.2g}", str(each.n)) == (p_value, n)
    told = re.compile(r"rho of recall \(tau 0\.1\) with F1 is (\S+ \[.*?\]), p = (\S+?)[.,] ")
    for page in (text, README.read_text("utf-8")):
        assert told.findall(" ".join(page.split())) == [(rows[0][1], rows[0][2])]


def test_choices_of_the_grid_are_what_the_analysis_counts():
    group, text = grid()
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    counted = {each.measure: (each.right, each.wrong, each.tied) for each in group.choices}
    told = {MEASURES.get(m, m.replace(" ", "_")): tuple(map(int, row)) for m, *row in rows}
    assert told == counted


def test_what_is_told_of_recall_is_what_the_settings_have():
    """Kinds that recall as much as real data, and between what F1 they end."""
    group, text = grid()
    (task,) = group.tasks
    real = next(s for s in task.settings if s.setting == "real").measures["recall"].value
    names = {run.setting for run in points_of(task, "synthetic")}
    own = [each.measures for each in task.settings if each.setting in names]
    f1 = sorted(each["f1"].value for each in own if each["recall"].value >= real - 1e-9)
    told = re.compile(
        r"(\d+) of the (\d+) kinds recall as much .*? \((\S+)\) or more, and end anywhere between "
        r"(\S+) and (\S+) F1"
    )
    ends = [f"{value:.2f}" for value in (real, f1[0], f1[-1])]
    assert told.findall(" ".join(text.split())) == [(str(len(f1)), str(len(own)), *ends)]


def test_rho_over_tau_and_without_the_setting_that_is_not_matched_are_as_told():
    group, text = grid()
    text = " ".join(text.split())
    (over,) = [
        each
        for each in group.over_tau
        if (each.task, each.measure, each.points) == ("mdqa", "recall", "synthetic")
    ]
    rhos = {f"{tau:.3g}": f"{rho:.2f}" for tau, rho in zip(over.taus, over.rho, strict=True) if rho}
    (told,) = re.findall(r"rho of recall is (.*?)\. 0\.1 was fixed", text)
    pairs = [pair.split(" at ") for pair in told.split(", ")]
    assert len(pairs) > 3
    assert all(rhos[tau] == rho for rho, tau in pairs)
    (task,) = group.tasks
    names = {run.setting for run in points_of(task, "synthetic")} - {"entity-real"}
    own = [each.measures for each in task.settings if each.setting in names]
    rho = spearman(*([each[name].value for each in own] for name in ("recall", "f1")))
    assert f"It has the lowest F1. Without it rho is {rho:.2f}." in text


def test_the_run_that_was_repeated_came_out_as_it_is_told():
    runs = [DOCS / "studies" / "nq-grid-1" / f for f in ("runs", "repeat")]
    pair = [folder / "mdqa-reference-seed100" for folder in runs]
    records = [read_jsonl(folder / "records.jsonl")[-1] for folder in pair]
    answers = [read_jsonl(folder / "predictions" / "step-000064.jsonl") for folder in pair]
    maps = [HeadScores.load(folder / "heads" / "step-000064.json").scores for folder in pair]
    f1 = [[row["f1"] for row in sorted(rows, key=lambda row: row["id"])] for rows in answers]
    apart = paired_bootstrap(f1[1], f1[0], seed=0)
    assert apart is not None
    same = sum(a == b for a, b in zip(*f1, strict=True))
    heads = [m > 0.1 for m in maps]
    assert (heads[0] == heads[1]).all()
    told = (
        "F1 {:.3f} and {:.3f}, ".format(*(row["f1"] for row in records))
        + "{:.3f} [{:.3f}, {:.3f}] apart, ".format(*apart)
        + f"the same F1 on {same} of {len(f1[0])} questions; validation loss "
        + "{:.2f} and {:.2f}; ".format(*(row["answer_nll"] for row in records))
        + f"the same {heads[0].sum()} heads above tau, cosine of the head scores "
        + f"{cosine(*maps):.4f}"
    )
    assert told in " ".join((DOCS / "findings.md").read_text("utf-8").split())
