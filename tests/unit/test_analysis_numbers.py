"""Numbers of an analysis are those of the raw score files, and of what was planted."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from sce.analysis.study import analyse
from sce.analysis.tasks import Limits
from sce.records import HeadScores
from sce.stats import comparison_intervals
from study_runs import (
    Planted,
    Tuned,
    World,
    write_knockout,
    write_reference,
    write_run,
    write_runs,
    write_study,
)

WORLD = World(num_own=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Twelve settings of two seeds whose F1 follows the share of heads learned, two real seeds."""
    return write_runs(tmp_path_factory.mktemp("runs"), WORLD, Planted(noise=0.02))


@pytest.fixture(scope="module")
def found(runs):
    return analyse(runs)


def last_scores(folder):
    return HeadScores.load(folder / "heads" / "step-000024.json")


def by_name(task):
    return {run.name: run for run in task.runs}


def recalled(s, r, b, tau=0.1):
    """Recall, recall learned and cosine by plain sets of (layer, head)."""
    sets = []
    for scores in (s, r, b):
        heads = {(la, h) for la, row in enumerate(scores) for h, v in enumerate(row) if v > tau}
        sets.append(heads)
    ours, theirs, before = sets
    learned = theirs - before
    a, c = np.ravel(s), np.ravel(r)
    cosine = (a * c).sum() / np.sqrt((a * a).sum() * (c * c).sum())
    return len(ours & theirs) / len(theirs), len(ours & learned) / len(learned), cosine


def test_measures_are_those_of_the_raw_files_each_against_real_runs_other_than_itself(runs, found):
    (task,) = found.groups[0].tasks
    real = {
        folder.name: last_scores(folder).scores for folder in runs if "real-real" in folder.name
    }
    assert len(real) == 2
    for folder in runs:
        run = by_name(task)[folder.name]
        reference = np.mean([s for name, s in real.items() if name != folder.name], axis=0)
        base = HeadScores.load(folder / "heads" / "step-000000.json").scores
        expected = recalled(last_scores(folder).scores, reference, base)
        measures = run.last.measures
        names = ("recall", "recall_learned", "cosine")
        assert [measures[name].value for name in names] == pytest.approx(expected)
        row = json.loads((folder / "records.jsonl").read_text().splitlines()[-1])
        assert (measures["f1"].value, measures["f1"].n) == (row["f1"], row["num_examples"])
        assert run.is_point


def test_rho_is_that_of_the_settings_means_with_and_without_real_and_untuned(runs, found):
    (group,) = found.groups
    settings = {}
    for folder in runs:
        run = by_name(group.tasks[0])[folder.name]
        row = json.loads((folder / "records.jsonl").read_text().splitlines()[-1])
        name = row["concept"], row["context"]
        settings.setdefault(name, []).append((run.last.measures["recall"].value, row["f1"]))
    means = {name: np.mean(points, axis=0) for name, points in settings.items()}
    synthetic = np.array([point for name, point in means.items() if name != ("real", "real")])
    before = by_name(group.tasks[0])["untuned"].last.measures
    every = [*means.values(), [before["recall"].value, before["f1"].value]]
    rhos = {rho.points: rho for rho in group.correlations if rho.measure == "recall"}
    assert rhos["synthetic"].found.spearman == pytest.approx(spearmanr(*synthetic.T)[0])
    assert (rhos["synthetic"].found.n, rhos["synthetic"].num_runs) == (12, 24)
    assert rhos["all"].found.spearman == pytest.approx(spearmanr(*np.array(every).T)[0])
    assert (rhos["all"].found.n, rhos["all"].num_runs) == (14, 27)


def test_fewer_examples_of_real_data_are_a_point_and_no_synthetic_one(tmp_path):
    study = write_study(tmp_path, [WORLD], Planted())
    content = json.loads((study / "study.json").read_text())
    own = {"kind": "limited", "setting": "real-96"}
    for job in content["jobs"]:
        if job["kind"] == "real" and job["seed"] == Planted().real_seeds[-1]:
            job.update(own)
    (study / "study.json").write_text(json.dumps(content))
    (study / "reference" / "mdqa.json").unlink()
    (group,) = analyse([study]).groups
    assert "real-96" in {run.setting for run in group.tasks[0].runs if run.is_point}
    rhos = {rho.points: rho.found.n for rho in group.correlations if rho.measure == "recall"}
    assert rhos["synthetic"] == 12
    assert rhos["all"] >= 13


def test_a_planted_correlation_ceiling_and_null_come_out(runs, found):
    (group,) = found.groups
    (task,) = group.tasks
    rho = next(r for r in group.correlations if (r.measure, r.points) == ("recall", "synthetic"))
    assert rho.found.spearman > 0.9
    assert rho.found.p_value < 0.001
    assert rho.found.spearman_low > 0.6
    assert rho.found.smallest_detectable == pytest.approx(0.587, abs=0.02)  # n = 12, two-sided
    # A real run shares all but the one head that each has learned by itself: 20 of 21.
    assert task.ceiling["recall"].value == pytest.approx(20 / 21)
    assert task.ceiling["recall"].n == 2
    # As many heads at random in each layer of nine hit so many of the reference's there.
    real = [last_scores(folder).scores for folder in runs if "real-real" in folder.name]
    reference, dealt = np.mean(real, axis=0) > 0.1, {}
    for folder in runs:
        ours = last_scores(folder).scores > 0.1
        hit = (ours.sum(axis=1) * reference.sum(axis=1) / 9).sum() / reference.sum()
        dealt.setdefault(folder.name.rpartition("-")[0], []).append(hit)
    del dealt["mdqa-real-real"]
    expected = np.mean([np.mean(seeds) for seeds in dealt.values()])
    assert task.nulls["recall"].value == pytest.approx(expected)
    assert task.nulls["recall"].n == 12
    assert by_name(task)["untuned"].last.measures["recall_learned"].value == 0


def test_f1_without_regard_to_heads_goes_with_nothing(tmp_path):
    folders = write_runs(tmp_path, WORLD, Planted(num_settings=16, follows=False))
    (group,) = analyse(folders).groups
    rho = next(r for r in group.correlations if (r.measure, r.points) == ("recall", "synthetic"))
    assert rho.found.p_value > 0.05
    assert rho.found.spearman_low < 0 < rho.found.spearman_high
    assert "by no more than chance" in group.answers[0]
    ratios = {p.name: p.ratio.value for p in group.predictors}
    assert ratios["recall"] > 0.9
    assert ratios["validation loss"] < 0.2  # it is 2 - F1 here


def test_bounds_are_those_of_the_callbacks_arithmetic(runs, found):
    folder = runs[0]
    real = [last_scores(each) for each in runs if "real-real" in each.name]
    expected = comparison_intervals(
        last_scores(folder).per_example,
        np.mean([each.per_example for each in real], axis=0),
        HeadScores.load(folder / "heads" / "step-000000.json").per_example,
        tau=0.1,
        k=20,
        seed=0,
        num_resamples=200,
    )
    measures = by_name(found.groups[0].tasks[0])[folder.name].last.measures
    for name, interval in expected.items():
        own = measures[name]
        assert (own.low, own.high) == pytest.approx(interval or (None, None)), name


def test_members_of_a_reference_file_are_no_points(tmp_path, runs):
    real = [Tuned(1.0, 0.7, "real", "real", seed) for seed in (100, 101)]
    folders = [folder for folder in runs if "real-real" in folder.name]
    own = World(num_own=1)
    file = write_reference(tmp_path / "ref.json", own, list(zip(folders, real, strict=True)))
    third = write_run(tmp_path / "third", own, Tuned(1.0, 0.68, "real", "real", 7))
    (task,) = analyse([*runs, third], [file]).groups[0].tasks
    named = by_name(task)
    assert [named[f.name].is_point for f in folders] == [False, False]
    assert [named[f.name].in_reference for f in folders] == [True, True]
    assert named["third"].is_point
    assert named["third"].compared_with == str(file)
    assert task.reference.members == [folder.name for folder in folders]
    assert task.ceiling["recall"].n == 1  # the only point among the real runs
    assert [s.runs for s in task.settings if s.kind == "real"] == [["third"]]
    # A member is compared with the other real runs: the mean of the two that are left.
    first, *others = [last_scores(folder).scores for folder in (*folders, third)]
    expected = recalled(first, np.mean(others, axis=0), own.scored(0, 0).mean(axis=0))
    assert named[folders[0].name].last.measures["recall"].value == pytest.approx(expected[0])


def test_a_single_real_run_is_the_reference_and_nothing_more(tmp_path):
    planted = Planted(num_settings=4, seeds=(0,), real_seeds=(100,))
    (task,) = analyse(write_runs(tmp_path, WORLD, planted)).groups[0].tasks
    (real,) = [run for run in task.runs if run.kind == "real"]
    assert (real.is_point, real.compared_with, real.in_reference) == (False, None, True)
    assert not task.ceiling
    assert any("the only real run" in warning for warning in task.warnings)


def test_heads_gained_and_lost_are_told_from_the_untuned_model(runs, found):
    run = by_name(found.groups[0].tasks[0])[runs[0].name]
    after = {tuple(h) for h in np.argwhere(last_scores(runs[0]).scores > 0.1).tolist()}
    before = HeadScores.load(runs[0] / "heads" / "step-000000.json").scores
    had = {tuple(h) for h in np.argwhere(before > 0.1).tolist()}
    assert set(run.gained) == after - had
    assert set(run.lost) == had - after
    assert set(run.heads) == after


def test_recorded_bounds_stand_where_the_reference_is_the_runs_own(tmp_path, runs):
    folder = tmp_path / "run"
    write_run(folder, WORLD, Tuned(0.5, 0.4, "high", "low", 3))
    real = [each for each in runs if "real-real" in each.name]
    first = by_name(analyse([folder, *real]).groups[0].tasks[0])["run"].last
    assert first.source == "scores"
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    names = ("recall", "cosine", "cosine_learned", "num_reference_heads")
    lines[-1] |= {name: first.measures[name].value for name in names}
    lines[-1] |= {"recall_low": 0.123, "recall_high": 0.987}
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    again = by_name(analyse([folder, *real]).groups[0].tasks[0])["run"].last
    assert again.source == "records"
    assert (again.measures["recall"].low, again.measures["recall"].high) == (0.123, 0.987)
    assert again.measures["recall"].value == first.measures["recall"].value


def heads_above(folder, tau=0.1):
    return {tuple(head) for head in np.argwhere(last_scores(folder).scores > tau).tolist()}


def seeds_of(runs, setting):
    return [f for f in runs if f.name.startswith(f"mdqa-{setting.replace('/', '-')}-seed")]


def test_overlaps_are_those_of_plain_sets_a_row_as_the_run_and_a_column_as_the_reference(
    runs, found
):
    (task,) = found.groups[0].tasks
    own = {each.measure: each for each in task.overlaps}
    names = own["recall"].names
    first, second = (names.index(name) for name in ("high/high", "high/low"))
    pairs = [(a, b) for a in seeds_of(runs, "high/high") for b in seeds_of(runs, "high/low")]
    assert len(pairs) == 4
    recalls, back, jaccards, cosines = [], [], [], []
    for a, b in pairs:
        ours, theirs = heads_above(a), heads_above(b)
        recalls.append(len(ours & theirs) / len(theirs))
        back.append(len(ours & theirs) / len(ours))
        jaccards.append(len(ours & theirs) / len(ours | theirs))
        x, y = (last_scores(folder).scores.ravel() for folder in (a, b))
        cosines.append(x @ y / np.sqrt((x @ x) * (y @ y)))
    assert np.mean(recalls) != pytest.approx(np.mean(back))  # so that the two cannot be mixed up

    def told(measure, row, column):
        return own[measure].cells[row][column]

    assert told("recall", first, second).value == pytest.approx(np.mean(recalls))
    assert told("recall", second, first).value == pytest.approx(np.mean(back))
    for measure, values in (("jaccard", jaccards), ("cosine", cosines)):
        for cell in (told(measure, first, second), told(measure, second, first)):
            assert (cell.value, cell.n) == (pytest.approx(np.mean(values), abs=1e-6), 4)
    a, b = (heads_above(folder) for folder in seeds_of(runs, "high/high"))
    seeds = np.mean([len(a & b) / len(a), len(a & b) / len(b)])
    assert told("recall", first, first).value == pytest.approx(seeds)
    cell = told("recall", first, second)
    assert cell.low <= cell.value <= cell.high


def test_shares_of_layers_are_those_of_plain_sets(runs, found):
    (task,) = found.groups[0].tasks
    (own,) = [each for each in task.layers if each.name == "high/high"]
    sets = [heads_above(folder) for folder in seeds_of(runs, "high/high")]
    for layer, share in enumerate(own.shares):
        expected = np.mean([len([h for h in s if h[0] == layer]) / len(s) for s in sets])
        assert (share.value, share.n) == (pytest.approx(expected), 2)
    assert sum(share.value for share in own.shares) == pytest.approx(1)
    assert own.num_heads == np.mean([len(s) for s in sets])


def test_curves_over_tau_and_their_rho_are_those_of_plain_sets(runs, found):
    (group,) = found.groups
    (task,) = group.tasks
    real = [last_scores(folder).scores for folder in seeds_of(runs, "real/real")]
    r = np.mean(real, axis=0)
    points = [run for run in task.runs if run.kind == "synthetic"]
    (over,) = [
        o for o in group.rho_over if (o.measure, o.points, o.by) == ("recall", "synthetic", "tau")
    ]
    checked = 0
    for at in range(0, len(over.at), 7):
        tau, recalls = over.at[at], {}
        if not (r > tau).any():
            continue
        for run in points:
            s = next(last_scores(folder).scores for folder in runs if folder.name == run.name)
            expected = ((s > tau) & (r > tau)).sum() / (r > tau).sum()
            curve = run.over_tau
            assert curve.measures["recall"][list(curve.at).index(tau)] == pytest.approx(expected)
            recalls.setdefault(run.setting, []).append(expected)
        f1 = {s.setting: s.measures["f1"].value for s in task.settings}
        means = [np.mean(values) for values in recalls.values()]
        if len(set(means)) > 1:
            rho = spearmanr(means, [f1[name] for name in recalls])[0]
            assert over.rho[at] == pytest.approx(rho)
            checked += 1
    assert checked > 2


def test_limits_of_the_command_line_hold(runs):
    (task,) = analyse(runs[:2] + runs[-2:], limits=Limits(tau=0.3, k=5)).groups[0].tasks
    assert (task.tau, task.k) == (0.3, 5)
    assert task.runs[0].heads == [
        tuple(h) for h in np.argwhere(last_scores(runs[0]).scores > 0.3).tolist()
    ]


def test_a_study_of_two_tasks_is_pooled_with_and_without_their_means(tmp_path):
    worlds = [World(), World(seed=5, task="musique")]
    study = write_study(tmp_path, worlds, Planted(num_settings=8, noise=0.05))
    write_knockout(study / "knockout" / "mdqa-high-real-seed0" / "results.json")
    found = analyse([study])
    (group,) = found.groups
    assert found.study == "a-study"
    assert [task.task for task in group.tasks] == ["mdqa", "musique"]
    pooled = [r for r in group.correlations if r.task is None and r.points == "synthetic"]
    assert {r.without_task_means for r in pooled} == {True, False}
    assert {r.found.n for r in pooled} == {16}
    task = group.tasks[0]
    assert task.reference.source.endswith("reference/mdqa.json")
    assert len(task.baselines) == 8
    assert [each.method for each in task.interventions] == ["knockout", "knockout", "patch"]
    assert [each.setting for each in task.interventions[:2]] == [None, "high/real"]
    patch = task.interventions[2]
    assert (patch.setting, patch.seed) == ("high/real", 0)
    assert patch.worse_than_random[0]["name"] == "complement"
    assert not [run for run in task.runs if run.kind == "real" and run.is_point]
