"""What an analysis says of its own correlations, held against plain arithmetic on the runs."""

import csv

import numpy as np
import pytest
from scipy.stats import spearmanr

from sce.analysis.accuracy import family
from sce.analysis.page.tables import rhos
from sce.analysis.study import analyse
from sce.analysis.tables import save_tables
from study_runs import Planted, World, write_runs


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Twelve settings of six concepts, two seeds each, and two real seeds."""
    planted = Planted(noise=0.05)
    return analyse(write_runs(tmp_path_factory.mktemp("runs"), World(num_own=1), planted))


def of(found, measure, points="synthetic"):
    (rho,) = [r for r in found.groups[0].correlations if (r.measure, r.points) == (measure, points)]
    return rho


def points(found):
    """Setting -> concept, recalls and F1 of its seeds."""
    table = {}
    for run in found.groups[0].tasks[0].runs:
        if run.kind == "synthetic":
            own = table.setdefault(run.setting, (run.concept, [], []))
            own[1].append(run.last.measures["recall"].value)
            own[2].append(run.last.measures["f1"].value)
    return table


def test_rho_between_families_is_that_of_the_means_of_their_settings(found):
    families = {}
    for concept, recalls, f1 in points(found).values():
        families.setdefault(concept, []).append((np.mean(recalls), np.mean(f1)))
    means = np.array([np.mean(own, axis=0) for own in families.values()])
    parts = of(found, "recall").families
    assert (parts.between.n, parts.within.n) == (len(means), 12 - 1)  # symbolic stands alone
    assert parts.between.spearman == pytest.approx(spearmanr(*means.T)[0])


def test_families_are_needles_or_the_kind_of_data(found):
    runs = {run.name: run for run in found.groups[0].tasks[0].runs}
    assert family(runs["mdqa-low_entity-real-seed0"]) == "low_entity"
    assert family(runs["mdqa-real-high-seed0"]) == family(runs["mdqa-real-low-seed1"]) == "real"
    assert family(runs["untuned"]) == "untuned"


def test_reliability_is_what_seeds_leave_of_the_settings_differences(found):
    recalls = np.array([recalls for _, recalls, _ in points(found).values()])
    noise = recalls.var(axis=1, ddof=1).mean() / 2
    expected = 1 - noise / recalls.mean(axis=1).var(ddof=1)
    assert of(found, "recall").reliability.value == pytest.approx(expected)
    assert of(found, "recall").reliability.n == 12


def test_a_measure_is_asked_what_it_says_beyond_validation_loss(found):
    """The loss that is planted is 2 - F1: nothing is left to say, and of itself none is asked."""
    assert of(found, "recall").given_loss.value is None
    assert of(found, "answer_nll").given_loss.value is None


def test_p_values_are_corrected_for_all_measures_of_the_same_points(found):
    own = [r for r in found.groups[0].correlations if r.points == "synthetic"]
    first = min(own, key=lambda r: r.found.p_value)
    assert first.p_holm == pytest.approx(min(1, first.found.p_value * len(own)))
    last = max(own, key=lambda r: r.found.p_value)
    assert last.p_holm >= max(r.p_holm for r in own)
    assert all(r.p_holm >= r.found.p_value for r in own)


def test_rho_over_k_is_that_of_the_sets_of_k_best_heads(found):
    (over,) = [
        o
        for o in found.groups[0].rho_over
        if (o.measure, o.points, o.by) == ("recall", "synthetic", "k")
    ]
    task = found.groups[0].tasks[0]
    f1 = {s.setting: s.measures["f1"].value for s in task.settings}
    for index, k in enumerate(over.at):
        recalls = {}
        for run in task.runs:
            if run.kind == "synthetic":
                values = run.over_k.measures["recall"]
                recalls.setdefault(run.setting, []).append(values[list(run.over_k.at).index(k)])
        means = np.round([np.mean(own) for own in recalls.values()], 12)
        if len(set(means)) > 1:
            rho = spearmanr(means, [f1[name] for name in recalls])[0]
            assert over.rho[index] == pytest.approx(rho)
        else:
            assert over.rho[index] is None
    known = [rho for rho in over.rho if rho is not None]
    assert over.ends == (min(known), max(known))


def test_prediction_is_of_settings_each_once_and_of_whole_families(found):
    predicted = {p.name: p for p in found.groups[0].predictors}
    means = np.array([np.mean(f1) for _, _, f1 in points(found).values()])
    others = (means.sum() - means) / (len(means) - 1)
    assert predicted["mean only"].mae == pytest.approx(np.abs(means - others).mean())
    assert (predicted["recall"].ratio.n, predicted["recall"].num_runs) == (12, 24)
    assert predicted["recall"].ratio_by_family.n == 6
    assert predicted["recall"].ratio_by_family.value < 1


def test_tables_page_and_sentences_have_it(found, tmp_path):
    save_tables(found, tmp_path)
    with (tmp_path / "correlations.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["measure"] == "recall")
    rho = of(found, "recall")
    assert float(row["between_families_p_value"]) == rho.families.between.p_value
    assert float(row["within_families_spearman"]) == rho.families.within.spearman
    assert float(row["reliability"]) == rho.reliability.value
    assert float(row["p_holm"]) == rho.p_holm
    assert (tmp_path / "correlations_over_k.csv").is_file()
    tables = {table["title"]: table for table in rhos(found.groups[0], "mdqa")}
    shown = tables["How far to trust these"]
    (first,) = [
        r for r in shown["rows"] if r[0].startswith("recall of the ref") and "synth" in r[1]
    ]
    assert first[3:6] == [
        round(rho.families.between.spearman, 6),
        round(rho.families.between.p_value, 6),
        rho.families.between.n,
    ]
    said = " ".join(found.groups[0].answers)
    assert f"between their 6 families rho of recall is {rho.families.between.spearman:.2f}" in said
    assert f"recall {rho.reliability.value:.2f} [" in said
    assert "with another k, from " in said


def test_settings_of_one_seed_have_no_reliability_and_the_page_says_nothing_of_it(tmp_path):
    found = analyse(write_runs(tmp_path, World(), Planted(num_settings=4, seeds=(0,))))
    rho = of(found, "recall")
    assert rho.reliability.value is None
    assert not any("reliability over seeds" in line for line in found.groups[0].answers)
