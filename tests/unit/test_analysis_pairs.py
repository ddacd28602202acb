"""Which two kinds of data have the reference's heads between them."""

import json

import numpy as np
import pytest

from sce.analysis.pairs import pairs
from sce.analysis.parts import HeadSetOf, Setting
from sce.analysis.study import analyse
from sce.analysis.tables import tables
from sce.records import HeadScores
from sce.stats import Estimate
from study_runs import Planted, World, write_runs

HEADS = ((0, 0), (0, 1), (1, 0), (1, 1))


def a_map(*heads, score=0.4):
    scores = np.full((2, 4), 0.01)
    for layer, head in heads:
        scores[layer, head] = score
    return scores


def a_set(*heads):
    return HeadSetOf("file", [], a_map(*heads), list(heads), 8)


def setting(name, *heads, kind="synthetic", recall=None, cosine=None):
    found = {"recall": recall, "cosine": cosine}
    measures = {key: Estimate(value, None, None, 2) for key, value in found.items()}
    nothing = {"runs": [], "seeds": [], "by_seed": {}, "nulls": {}, "curve": []}
    return Setting(
        **{"setting": name, "kind": kind, "task": "mdqa", "gained": {}, "lost": {}, **nothing},
        measures=measures,
        scores=a_map(*heads),
    )


def test_two_that_complete_each_other_come_before_two_alike():
    settings = [
        setting("a", (0, 0), (0, 1), recall=0.5),
        setting("b", (0, 0), (0, 1), recall=0.5),
        setting("c", (1, 0), (1, 1), (1, 3), recall=0.5),
    ]
    found = pairs(settings, a_set(*HEADS), a_set((0, 0)), tau=0.1)
    assert [(pair.first, pair.second) for pair in found] == [("a", "c"), ("b", "c"), ("a", "b")]
    best = found[0]
    assert (best.recall, best.recall_learned, best.precision) == (1, 1, 0.8)
    assert (best.num_heads, best.mean_recall) == (5, 0.5)
    # Two of four places in layer 0 and three in layer 1, two of the reference's heads in each.
    assert best.recall_null_layer == pytest.approx((2 * 2 / 4 + 3 * 2 / 4) / 4)
    assert found[2].recall == 0.5
    assert found[2].recall_learned == pytest.approx(1 / 3)


def test_equals_come_by_their_own_recall_and_then_cosine():
    both = ((0, 0), (0, 1))
    settings = [
        setting("a", *both, recall=0.5, cosine=0.8),
        setting("b", *both, recall=0.5, cosine=0.9),
        setting("c", *both, recall=0.4, cosine=0.99),
        setting("d", *both),
    ]
    found = pairs(settings, a_set(*both), None, tau=0.1)
    named = [(pair.first, pair.second) for pair in found]
    assert named[:3] == [("a", "b"), ("b", "c"), ("a", "c")]
    assert {pair.recall_learned for pair in found} == {None}
    assert found[-1].mean_recall is None


def test_real_untuned_and_mixed_data_are_not_paired():
    kinds = ("real", "untuned", "mixture", "synthetic", "limited")
    settings = [setting(kind, (0, 0), kind=kind) for kind in kinds]
    (pair,) = pairs(settings, a_set((0, 0)), None, tau=0.1)
    assert {pair.first, pair.second} == {"synthetic", "limited"}
    assert pairs(settings, None, None, tau=0.1) == []


def test_a_pair_of_an_analysis_is_that_of_the_score_files(tmp_path):
    folders = write_runs(tmp_path, World(num_own=2), Planted(num_settings=3))
    found = analyse(folders)
    (row, *_) = tables(found)["pairs"]
    means = {}
    for name in (row["first"], row["second"], "real/real"):
        cell = name.replace("/", "-")
        files = list(tmp_path.glob(f"mdqa-{cell}-seed*/heads/step-000024.json"))
        assert files, name
        means[name] = np.mean([HeadScores.load(file).scores for file in files], axis=0)
    one, other, reference = (np.round(scores, 9) > 0.1 for scores in means.values())
    assert row["recall"] == ((one | other) & reference).sum() / reference.sum()
    assert row["num_heads"] == (one | other).sum()
    assert len(found.groups[0].tasks[0].pairs) == 3
    assert json.loads(json.dumps(found.to_json()))["groups"][0]["tasks"][0]["pairs"]
