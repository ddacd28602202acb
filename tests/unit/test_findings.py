"""What docs/findings.md says of the studies that lie beside it is what their records say."""

import functools
import re
from pathlib import Path

import pytest

import told
from sce.analysis.accuracy import family, points_of
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


def figure(row, name, digits):
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
    assert f1 == figure(row, "f1", 3)
    for cell, name in ((recall, "recall"), (learned, "recall_learned")):
        assert cell.split(" (")[0] == figure(row, name, 2), name
    assert nll == f"{row['answer_nll']:.2f}"


@pytest.mark.parametrize("study", [s for s in STUDIES if s.name.startswith("pilot")], ids=str)
def test_every_run_of_a_pilot_is_told_of(study):
    named = {cells[0] for name, cells in ROWS if name == study.name}
    assert named == {folder.name for folder in (study / "runs").iterdir()}


@pytest.mark.parametrize("study", STUDIES, ids=lambda folder: folder.name)
def test_a_study_that_is_kept_can_be_analysed_and_holds_no_text_and_no_path(study):
    found = analysed(study)
    assert sum(len(task.runs) for group in found.groups for task in group.tasks) > 1
    for file in study.rglob("*.json*"):
        text = file.read_text("utf-8")
        assert '"/' not in text and "../" not in text, file
        assert '"question"' not in text and '"text"' not in text, file


def grid():
    """What the analysis finds in the grid, and what is told of it, in one line."""
    (group,) = analysed(DOCS / "studies" / "nq-grid-1").groups
    return group, (DOCS / "findings.md").read_text("utf-8")


def in_one_line(text):
    return " ".join(text.split())


def test_tables_of_rho_are_what_the_analysis_finds():
    group, text = grid()
    assert told.rho_table(group, "mdqa") in text
    assert told.over_table(group, "mdqa", "tau", (0.004, 0.5)) in text
    assert told.over_table(group, "mdqa", "k", (1, 50)) in text


def test_rho_in_words_is_that_of_the_table():
    group, text = grid()
    own = told.rhos(group, "mdqa")
    rho = told.correlation(own["recall"].found), f"{own['recall'].found.p_value:.2g}"
    said = re.compile(r"[Rr]ho of recall \(tau 0\.1\) with F1 is (\S+ \[.*?\]), p = (\S+?)[.,] ")
    for page in (text, README.read_text("utf-8")):
        assert said.findall(in_one_line(page)) == [rho]
        for measure in ("cosine", "answer_nll"):
            assert told.correlation(own[measure].found) in in_one_line(page)
    every = told.rhos(group, "mdqa", "all")["recall"].found
    second = f"{told.correlation(every)} for recall, p = {every.p_value:.2g}, n = {every.n}."
    assert second in in_one_line(text)


def test_the_range_of_rho_over_thresholds_and_sizes_is_told():
    group, text = grid()
    ends = []
    for by, low, high in (("tau", 0.004, 0.5), ("tau", 0.0105, 0.08), ("k", 1, 50)):
        found = told.over(group, "mdqa", by)
        near = [r for a, r in zip(found.at, found.rho, strict=True) if low <= a <= high]
        ends += [f"{min(near):.2f}", f"{max(near):.2f}"]
    words = (
        r"from 0\.004 to 0\.5 rho is (\S+) to (\S+) \((\S+) to (\S+) from 0\.011 to 0\.075\), with "
        r"sets of the 1 to 50 best heads (\S+) to (\S+)\. Picking"
    )
    assert re.findall(words, in_one_line(text)) == [tuple(ends)]
    other = f"with other thresholds, from 0.004 to 0.5, it would be {ends[0]} to {ends[1]}"
    assert other in in_one_line(README.read_text("utf-8"))


def test_sentences_with_numbers_are_those_of_the_records():
    group, text = grid()
    (task,) = group.tasks
    said = in_one_line(text)
    for sentence in (
        told.coarse(task),
        told.picks(group),
        told.noise(group, task),
        told.against_loss(group, "mdqa"),
    ):
        assert sentence in said
    folders = {folder.name for folder in (DOCS / "studies" / "nq-grid-1" / "runs").iterdir()}
    names = {run.setting for run in points_of(task, "synthetic")}
    both = sum(f"mdqa-{name}-seed1" in folders for name in names)
    assert f"is at {len(folders)} of its 46 runs" in said
    assert f"({len(folders)} of 46 runs)" in in_one_line(README.read_text("utf-8"))
    assert f"{both} of the {len(names)} also with the second" in said


def test_what_is_told_of_some_settings_alone_is_so():
    group, text = grid()
    (task,) = group.tasks
    measures = ("recall", "recall_at_k", "cosine", "cosine_learned", "answer_nll")
    names = [told.called(measure) for measure in measures]
    apart = [told.among(task, measure, told.has_no_real_question) for measure in measures]
    first = [told.among(task, measure, lambda run: run.seed == 0) for measure in measures]
    said = in_one_line(text)
    assert f"Over the {apart[0].n} without any: {told.listed(apart, names)}." in said
    assert f"Seed 0 alone: {told.listed(first, names)}." in said


def test_how_long_answers_are_is_told():
    group, text = grid()
    words = told.words_of_answers(group.tasks[0])
    assert f"answers have on average {words}." in in_one_line(text)


def test_rho_with_answers_that_stand_in_replies_is_as_told(nq_file):
    group, text = grid()
    measures = ("recall", "recall_at_k", "cosine", "cosine_learned", "answer_nll")
    found = told.found_in_replies(group.tasks[0], measures, nq_file)
    said = told.listed(found, [told.called(measure) for measure in measures])
    assert f"stands in the reply as whole words, rho is {said}." in in_one_line(text)


def test_choices_of_the_grid_are_what_the_analysis_counts():
    group, text = grid()
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    counted = {told.called(c.measure): (c.right, c.wrong, c.tied) for c in group.choices}
    assert {measure: tuple(map(int, row)) for measure, *row in rows} == counted


def test_what_is_told_of_recall_is_what_the_settings_have():
    """Kinds that recall as much as real data, and between what F1 they end."""
    group, text = grid()
    (task,) = group.tasks
    real = next(s for s in task.settings if s.setting == "real").measures["recall"].value
    names = {run.setting for run in points_of(task, "synthetic")}
    own = [each.measures for each in task.settings if each.setting in names]
    f1 = sorted(each["f1"].value for each in own if each["recall"].value >= real - 1e-9)
    said = re.compile(
        r"(\d+) of the (\d+) kinds recall as much .*? \((\S+)\) or more, and end anywhere between "
        r"(\S+) and (\S+) F1"
    )
    ends = [f"{value:.2f}" for value in (real, f1[0], f1[-1])]
    assert said.findall(in_one_line(text)) == [(str(len(f1)), str(len(own)), *ends)]


def test_rho_without_the_setting_that_is_not_matched_and_without_families_is_as_told():
    group, text = grid()
    (task,) = group.tasks
    families = {run.setting: family(run) for run in points_of(task, "synthetic")}
    assert len(set(families.values())) == 6
    own = {s.setting: s.measures for s in task.settings if s.setting in families}

    def rho(keep):
        kept = [measures for name, measures in own.items() if keep(name)]
        return spearman(*([each[name].value for each in kept] for name in ("recall", "f1")))

    said = in_one_line(text)
    assert (
        f"It has the lowest F1. Without it rho is {rho(lambda name: name != 'entity-real'):.2f}."
        in said
    )
    without = {f: rho(lambda name, f=f: families[name] != f) for f in set(families.values())}
    assert f"rho is between {min(without.values()):.2f} and {max(without.values()):.2f}." in said


def test_mixtures_were_chosen_by_what_they_are_said_to_be_chosen_by():
    group, text = grid()
    arms, said = told.arms(group.tasks[0]), in_one_line(text)
    for before, by in (
        ("Chosen by recall is ", "recall"),
        ("The pure cell of the highest F1 is ", "f1"),
        ("of the pairs without it the least is ", "least"),
        ("The pair of the lowest mean loss is ", "loss"),
    ):
        assert f"{before}{arms[by]}" in said


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
    said = (
        "F1 {:.3f} and {:.3f}, ".format(*(row["f1"] for row in records))
        + "{:.3f} [{:.3f}, {:.3f}] apart, ".format(*apart)
        + f"the same F1 on {same} of {len(f1[0])} questions; validation loss "
        + "{:.2f} and {:.2f}; ".format(*(row["answer_nll"] for row in records))
        + f"the same {heads[0].sum()} heads above tau, cosine of the head scores "
        + f"{cosine(*maps):.4f}"
    )
    assert said in in_one_line((DOCS / "findings.md").read_text("utf-8"))
