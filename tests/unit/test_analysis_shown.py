"""What is said and drawn is what was found: verdicts of planted studies, and the rows of charts."""

import json

import pytest

from sce.analysis.charts.figure import Panel
from sce.analysis.charts.files import figures
from sce.analysis.charts.style import SHORT
from sce.analysis.study import analyse
from sce.studies.report import metrics
from study_runs import Planted, Tuned, World, settings, write_run, write_study

WORLD = World(examples=6)
ASKED = "Do heads (recall learned) say more of F1 than validation loss?"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    worlds = [World(examples=6, num_own=1), World(seed=4, task="musique", examples=6)]
    study = write_study(tmp_path_factory.mktemp("s"), worlds, Planted(num_settings=9, noise=0.03))
    return analyse([study])


# -- verdicts -------------------------------------------------------------------------------------


def planted(folder, *, by_heads, by_loss):
    """Twelve settings whose F1 rises by 0.04; heads and loss rank them as they are told to."""
    runs = []
    for place, (concept, context) in enumerate(settings(12)):
        f1, quality = 0.2 + 0.04 * place, (by_heads[place] + 0.5) / 12
        run = Tuned(quality, f1, concept, context, nll=2.0 - 0.1 * by_loss[place])
        runs.append(write_run(folder / f"{concept}-{context}", WORLD, run))
    for seed in (100, 101):
        run = Tuned(1.0, 0.9, "real", "real", seed)
        runs.append(write_run(folder / f"real-{seed}", WORLD, run))
    (group,) = analyse(runs).groups
    return group


RIGHT = list(range(12))
MIXED = [6, 1, 10, 3, 8, 5, 0, 7, 4, 9, 2, 11]


@pytest.mark.parametrize(
    ("by_heads", "by_loss", "verdict"),
    [
        (RIGHT, MIXED, "Yes"),
        (MIXED, RIGHT, "No, less"),
        (RIGHT, RIGHT, "Cannot be told, as both rank the settings alike"),
        (MIXED, MIXED[::-1], "Not shown"),
    ],
)
def test_what_ranks_settings_better_is_said_to(tmp_path, by_heads, by_loss, verdict):
    group = planted(tmp_path, by_heads=by_heads, by_loss=by_loss)
    (question,) = (
        q
        for q in group.questions
        if (q.first, q.second) == ("recall_learned", "answer_nll") and q.points == "synthetic"
    )
    (said,) = (line for line in group.answers if ASKED in line)
    assert f"{ASKED} {verdict}: rho differs by" in said
    gap = question.rho_difference
    assert (gap.value > 0) == (verdict in ("Yes",)) or verdict.startswith(("Cannot", "Not"))
    assert gap.n == 12


def test_what_predicts_better_than_the_mean_is_said_to_and_what_does_not_is_not(tmp_path):
    group = planted(tmp_path, by_heads=MIXED, by_loss=RIGHT)
    said = {line.split(" predicts ")[0]: line for line in group.answers if " predicts " in line}
    assert "better than the mean of the others" in said["mdqa: validation loss"]
    heads = next(line for name, line in said.items() if "recall learned" in name)
    assert "no better than" in heads or "worse than" in heads
    of_loss = {p.name: p.ratio_to_loss for p in group.predictors}["recall"]
    assert of_loss.low > 1  # its error over the loss's


# -- charts ---------------------------------------------------------------------------------------


def rows(panel: Panel, *columns: str) -> list[dict]:
    """Rows that have all of the columns."""
    every = [row for own in panel.datasets.values() for row in own]
    return [row for row in every if all(column in row for column in columns)]


def test_a_point_stands_at_its_setting_s_measure_and_f1(found):
    task = found.groups[0].tasks[0]
    drawn = figures(found)[0, "mdqa", "heads-and-f1"]
    names = {short: name for name, short in SHORT.items()}
    assert len(drawn.panels) > 3
    for panel in drawn.panels:
        measure = names[panel.title["text"]]
        points = {row["name"]: row for row in rows(panel, "name", "x_low", "y_high")}
        there = [s for s in task.settings if s.measures[measure].value is not None]
        assert len(there) >= 9
        assert points.keys() == {setting.setting for setting in there}
        for setting in there:
            for axis, name in (("x", measure), ("y", "f1")):
                own, row = setting.measures[name], points[setting.setting]
                place = [row[axis], row[f"{axis}_low"], row[f"{axis}_high"]]
                assert place == [own.value, own.low, own.high], (setting.setting, name)


def test_a_curve_goes_through_every_checkpoint_of_its_setting(found):
    task = found.groups[0].tasks[0]
    panels = {panel.setting: panel for panel in figures(found)[0, "mdqa", "learning"].panels}
    for setting in task.settings:
        if setting.kind == "untuned":
            continue
        drawn = {
            (row["step"], row["measure"]): (row["value"], row["low"], row["high"])
            for row in rows(panels[setting.setting], "measure")
            if "run" not in row
        }
        for name in ("recall", "f1"):
            for checkpoint in setting.curve:
                own = checkpoint.measures[name]
                at = checkpoint.step, SHORT[name]
                assert drawn[at] == (own.value, own.low, own.high)


def test_knocked_out_heads_are_drawn_as_they_were_measured(found):
    task = found.groups[0].tasks[0]
    (knockout,) = (each for each in task.interventions if each.method == "knockout")
    (panel,) = figures(found)[0, "mdqa", "knockout"].panels
    drawn = {(row["kind"], row["k"]): row["f1"] for row in rows(panel, "kind", "k", "f1")}
    kinds = {kind for kind, _ in drawn}
    assert len(kinds) == len(knockout.curves) == 2
    for curve, kind in zip(knockout.curves, dict.fromkeys(kind for kind, _ in drawn), strict=True):
        assert [drawn[kind, k] for k in curve["k"]] == curve["f1"]
        assert drawn[kind, 0] == 0.6  # with nothing taken out


# -- W&B ------------------------------------------------------------------------------------------


def test_what_is_logged_of_a_study_is_what_its_findings_say(found, tmp_path):
    found.save(tmp_path / "findings.json")
    logged = metrics(tmp_path / "findings.json")
    group = found.groups[0]
    told = [rho for rho in group.correlations if rho.points == "synthetic" and rho.is_told]
    assert {rho.task for rho in told} == {"mdqa", "musique", None}
    for rho in told:
        stem = "/".join(filter(None, ("study", rho.task, f"{rho.measure}_f1")))
        of = rho.found
        own = {"spearman": of.spearman, "spearman_low": of.spearman_low, "p": of.p_value, "n": of.n}
        own["spearman_high"] = of.spearman_high
        for name, value in own.items():
            if value is not None:
                assert logged.pop(f"{stem}_{name}") == pytest.approx(value, abs=1e-6)
    assert logged == {}
    assert json.loads((tmp_path / "findings.json").read_text())["groups"]
