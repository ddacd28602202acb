import pytest
import torch

from sce.metrics import exact_match, f1, metrics_for, normalize


@pytest.mark.parametrize(
    ("prediction", "answers", "expected_f1", "expected_match"),
    [
        ("The Eiffel Tower!", ("eiffel tower",), 1.0, 1.0),
        ("tower", ("Eiffel Tower",), 2 / 3, 0.0),
        ("in Rome", ("Paris", "Rome"), 2 / 3, 0.0),
        ("Rome", ("Paris", "Rome"), 1.0, 1.0),
        ("", ("Rome",), 0.0, 0.0),
        ("rome rome", ("Rome",), 2 / 3, 0.0),
        ("the", ("a",), 1.0, 1.0),
    ],
)
def test_squad_scores_by_hand(prediction, answers, expected_f1, expected_match):
    assert f1(prediction, answers) == pytest.approx(expected_f1)
    assert exact_match(prediction, answers) == expected_match


def test_normalisation_drops_case_articles_punctuation_and_spaces():
    assert normalize(" The  U.S., a   nation ") == "us nation"


@pytest.mark.parametrize("metric", ["f1", "exact_match"])
def test_metrics_keep_every_example_and_start_afresh(metric):
    kept = metrics_for("mdqa")[metric]
    kept.update("Rome", ("Rome",))
    kept.update("Oslo", ("Rome",))
    assert kept.compute().tolist() == [1.0, 0.0]
    kept.reset()
    kept.update("Rome", ("Rome",))
    assert kept.compute().dtype == torch.float64
    assert kept.compute().flatten().tolist() == [1.0]
