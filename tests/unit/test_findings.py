"""What docs/findings.md says of the studies that lie beside it is what their records say."""

import functools
import re
from pathlib import Path

import pytest

from sce.analysis.study import analyse
from sce.records import read_jsonl

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


def test_what_is_told_of_half_a_grid_is_what_the_analysis_finds():
    text = (DOCS / "findings.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([a-z ]+) \| (-?\d\S+ \[.*\]) \| (\S+) \| (\d+) \|$", text, re.MULTILINE
    )
    assert len(rows) == 5
    (group,) = analysed(DOCS / "studies" / "nq-grid-1").groups
    names = {"validation loss": "answer_nll"}
    for measure, rho, p_value, n in rows:
        name = names.get(measure, measure.replace(" ", "_"))
        (each,) = [
            rho.found
            for rho in group.correlations
            if (rho.task, rho.measure, rho.points) == ("mdqa", name, "synthetic")
        ]
        sides = each.spearman, each.spearman_low, each.spearman_high
        assert rho == "{:.2f} [{:.2f}, {:.2f}]".format(*sides)
        assert (f"{each.p_value:.2g}", str(each.n)) == (p_value, n)
    (recall,) = re.findall(r"rho of recall with F1 is (\S+ \[.*?\])", README.read_text("utf-8"))
    assert recall == rows[0][1]
