"""Callbacks on their own: what they make of few, constant and many points, and their state."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from callbacks import HeadHeatmap, RecallAccuracyCorrelation, RetrievalHeadRecall
from sce.decode import DecodeSettings
from sce.errors import InputError
from sce.module import SceModule
from sce.options import OptimizerOptions
from sce.records import HeadScores
from sce.validation import Place, Prediction, Validation
from test_records import FACTS

KEY = ("copy", "teacher_forced")


@pytest.fixture
def module(tmp_path):
    facts = replace(FACTS, run_dir=tmp_path / "run", tau=0.5, shape=(2, 3))
    module = SceModule(
        torch.nn.Identity,
        str,
        optimizer=OptimizerOptions(),
        settings=DecodeSettings(),
        facts=facts,
    )
    trainer = SimpleNamespace(
        callback_metrics={},
        is_global_zero=True,
        logger=None,
        loggers=[],
        global_step=0,
        world_size=1,
    )
    module._trainer = trainer
    return module


def reference_file(folder: Path, scores: np.ndarray, **provenance) -> str:
    full = {"weights_sha256": "w", "data_sha256": "d", "prompt_sha256": "p", "context_tokens": 100}
    head_scores = HeadScores(
        "copy", "teacher_forced", "exact", scores, 5, provenance={**full, **provenance}
    )
    head_scores.save(folder / "reference.json")
    return str(folder / "reference.json")


def validation(step: int, f1: list[float], scores: np.ndarray) -> Validation:
    predictions = tuple(
        Prediction(str(n), "", value, 0.0, place=Place(str(n), 0.5, 100))
        for n, value in enumerate(f1)
    )
    places = tuple(Place(str(n), n / len(scores), 100) for n in range(len(scores)))
    return Validation(step, predictions, 1.0, places, {KEY: scores})


def maps(*heads: tuple[int, int], examples: int = 4) -> np.ndarray:
    """[examples, 2, 3] scores, 1 at the given heads."""
    scores = np.zeros((examples, 2, 3))
    for layer, head in heads:
        scores[:, layer, head] = 1.0
    return scores


def metrics(module) -> dict[str, float]:
    return {name: float(value) for name, value in module.trainer.callback_metrics.items()}


def test_recall_and_its_companions_by_hand(module, tmp_path):
    # R = {00, 01, 12}; B = {00, 11}; S = {00, 01, 10}.
    path = reference_file(tmp_path, maps((0, 0), (0, 1), (1, 2)).mean(axis=0))
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    callback.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], maps((0, 0), (1, 1)))
    callback.on_validation_end(module.trainer, module)
    found = metrics(module)
    assert found["heads/recall"] == found["heads/recall_base"] == pytest.approx(1 / 3)
    assert np.isnan(found["heads/cosine_learned"])
    module.last_validation = validation(4, [0.0], maps((0, 0), (0, 1), (1, 0)))
    callback.on_validation_end(module.trainer, module)
    found = metrics(module)
    assert found["heads/recall"] == pytest.approx(2 / 3)
    assert found["heads/precision"] == pytest.approx(2 / 3)
    assert found["heads/jaccard"] == pytest.approx(2 / 4)
    assert found["heads/recall_learned"] == pytest.approx(1 / 2)
    assert found["heads/recall_null"] == pytest.approx(3 / 6)
    assert found["heads/recall_null_layer"] == pytest.approx((2 * 2 + 1 * 1) / (3 * 3))
    assert found["heads/num_heads"] == 3
    saved = HeadScores.load(module.facts.run_dir / "heads" / "step-000004.json")
    assert saved.provenance["step"] == 4


def test_an_empty_reference_gives_no_recall_and_an_empty_run_gives_zero(module, tmp_path):
    path = reference_file(tmp_path, np.zeros((2, 3)))
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    callback.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], maps((0, 0)))
    callback.on_validation_end(module.trainer, module)
    assert np.isnan(metrics(module)["heads/recall"])
    path = reference_file(tmp_path, maps((0, 1)).mean(axis=0))
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    callback.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], maps())
    callback.on_validation_end(module.trainer, module)
    assert metrics(module)["heads/recall"] == 0
    assert np.isnan(metrics(module)["heads/precision"])


def test_a_reference_of_other_weights_is_refused_at_setup(module, tmp_path):
    path = reference_file(tmp_path, np.zeros((2, 3)), weights_sha256="other")
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    with pytest.raises(InputError, match="heads of different models"):
        callback.setup(module.trainer, module, "fit")


def test_without_a_reference_heads_are_counted_and_written(module):
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=None)
    callback.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], maps((0, 0)))
    callback.on_validation_end(module.trainer, module)
    assert metrics(module) == {
        "heads/num_heads": 1,
        "heads/num_heads_low": 1,
        "heads/num_heads_high": 1,
        "heads/num_examples": 4,
    }


def test_the_untuned_model_s_scores_survive_a_checkpoint(module, tmp_path):
    path = reference_file(tmp_path, maps((0, 0), (0, 1)).mean(axis=0))
    first = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    first.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], maps((0, 0)))
    first.on_validation_end(module.trainer, module)
    resumed = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    resumed.load_state_dict(first.state_dict())
    resumed.setup(module.trainer, module, "fit")
    module.last_validation = validation(8, [0.0], maps((0, 0), (0, 1)))
    resumed.on_validation_end(module.trainer, module)
    assert metrics(module)["heads/recall_base"] == 0.5
    assert metrics(module)["heads/recall_learned"] == 1


def kept(scores: np.ndarray, *examples: int) -> np.ndarray:
    """The same scores, NaN for the examples that are not named."""
    rows = np.full_like(scores, np.nan)
    rows[list(examples)] = scores[list(examples)]
    return rows


def test_where_no_example_is_kept_there_is_no_figure_no_file_and_a_line_why(
    module, tmp_path, caplog
):
    caplog.set_level("INFO", logger="sce")
    path = reference_file(tmp_path, maps((0, 0), (0, 1)).mean(axis=0))
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    callback.setup(module.trainer, module, "fit")
    module.last_validation = validation(0, [0.0], kept(maps((0, 0))))
    callback.on_validation_end(module.trainer, module)
    found = metrics(module)
    assert found.pop("heads/num_examples") == 0
    assert found.pop("heads/num_reference_heads") == 2
    assert np.isnan(list(found.values())).all()
    assert not (module.facts.run_dir / "heads").exists()
    assert "scorer=copy kept none of the 4 reference examples" in caplog.text
    # Then there is no untuned model to have learned anything beside.
    module.last_validation = validation(4, [0.0], kept(maps((0, 0)), 1, 2))
    callback.on_validation_end(module.trainer, module)
    found = metrics(module)
    assert (found["heads/recall"], found["heads/num_examples"]) == (0.5, 2)
    assert np.isnan([found["heads/recall_base"], found["heads/recall_learned"]]).all()
    assert HeadScores.load(module.facts.run_dir / "heads" / "step-000004.json").num_examples == 2


def test_the_scores_of_every_example_lie_beside_the_mean(module):
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=None)
    rows = kept(maps((0, 0)), 0, 3)
    module.last_validation = validation(4, [0.0], rows)
    callback.on_validation_end(module.trainer, module)
    saved = HeadScores.load(module.facts.run_dir / "heads" / "step-000004.json")
    np.testing.assert_array_equal(saved.per_example, rows)


def test_greedy_figures_have_bounds_over_the_examples(module, tmp_path):
    path = reference_file(tmp_path, maps((0, 0), (0, 1)).mean(axis=0))
    callback = RetrievalHeadRecall(tau=0.5, k=2, reference_path=path)
    callback.setup(module.trainer, module, "fit")
    callback._greedy = callback._reference
    scores = maps((0, 0), (0, 1))
    scores[:2, 0, 1] = 0.5  # above tau in most resamples, not in all
    shown = validation(0, [0.0], maps((0, 0)))
    shown = replace(shown, scores={**shown.scores, ("copy", "greedy"): scores})
    module.last_validation = shown
    callback.on_validation_end(module.trainer, module)
    found = metrics(module)
    assert (found["heads/greedy_recall_low"], found["heads/greedy_recall_high"]) == (0.5, 1)
    assert found["heads/greedy_recall"] == 1
    bounds = [found[f"heads/greedy_cosine{end}"] for end in ("_low", "_high")]
    assert 0 < bounds[0] < bounds[1] <= 1.0001


def correlation_after(module, tmp_path, points) -> dict[str, float]:
    path = reference_file(tmp_path, maps((0, 0), (0, 1), (1, 0), (1, 1)).mean(axis=0))
    callback = RecallAccuracyCorrelation(tau=0.5, reference_path=path, num_resamples=50)
    callback.setup(module.trainer, module, "fit")
    for step, (f1, scores) in enumerate(points):
        module.last_validation = validation(step, f1, scores)
        callback.on_validation_end(module.trainer, module)
    return metrics(module)


GROWING = [maps(), maps((0, 0)), maps((0, 0), (0, 1)), maps((0, 0), (0, 1), (1, 0))]


def test_below_three_points_only_n_is_logged(module, tmp_path):
    found = correlation_after(module, tmp_path, [([0.1], GROWING[0]), ([0.2], GROWING[1])])
    assert found == {"correlation/n": 2}


def test_levels_and_first_differences_by_hand(module, tmp_path):
    f1 = [[0.0], [0.3], [0.4], [0.9]]
    found = correlation_after(module, tmp_path, list(zip(f1, GROWING, strict=True)))
    assert found["correlation/n"] == 4
    assert found["correlation/recall_f1_spearman"] == pytest.approx(1)
    x, y = [0, 0.25, 0.5, 0.75], [0, 0.3, 0.4, 0.9]
    assert found["correlation/recall_f1_pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    # Recall rises by the same amount each time: its differences are constant.
    assert np.isnan(found["correlation/recall_f1_differences"])
    assert "correlation/recall_f1_spearman_low" not in found


def test_a_constant_series_is_no_crash_and_no_number(module, tmp_path):
    points = [([0.5], GROWING[1])] * 3
    found = correlation_after(module, tmp_path, points)
    assert np.isnan(found["correlation/recall_f1_spearman"])


def test_from_eight_points_on_there_is_an_interval_over_examples(module, tmp_path):
    rng = np.random.default_rng(0)
    points = []
    for step in range(8):
        scores = (rng.random((12, 2, 3)) < 0.1 + 0.1 * step).astype(float)
        points.append(((rng.random(12) < 0.1 * (step + 1)).astype(float).tolist(), scores))
    found = correlation_after(module, tmp_path, points)
    low, high = (found[f"correlation/recall_f1_spearman_{side}"] for side in ("low", "high"))
    assert -1 <= low < high <= 1


def test_a_checkpoint_without_a_kept_example_is_no_point(module, tmp_path):
    points = [([0.1 * n], scores) for n, scores in enumerate(GROWING)]
    found = correlation_after(module, tmp_path, [([0.9], kept(GROWING[3])), *points])
    assert found["correlation/n"] == 4
    assert found["correlation/recall_f1_spearman"] == pytest.approx(1)


def test_correlation_state_goes_on_where_it_was(module, tmp_path):
    path = reference_file(tmp_path, maps((0, 0), (0, 1)).mean(axis=0))
    first = RecallAccuracyCorrelation(tau=0.5, reference_path=path)
    first.setup(module.trainer, module, "fit")
    for step in range(2):
        module.last_validation = validation(step, [0.1 * step], GROWING[step])
        first.on_validation_end(module.trainer, module)
    resumed = RecallAccuracyCorrelation(tau=0.5, reference_path=path)
    resumed.load_state_dict(first.state_dict())
    resumed.setup(module.trainer, module, "fit")
    # The same step again, as after a resume, counts once.
    module.last_validation = validation(1, [0.1], GROWING[1])
    resumed.on_validation_end(module.trainer, module)
    module.last_validation = validation(2, [0.5], GROWING[2])
    resumed.on_validation_end(module.trainer, module)
    assert metrics(module)["correlation/n"] == 3
    assert metrics(module)["correlation/recall_f1_spearman"] == pytest.approx(1)


def test_maps_are_drawn_every_so_many_validations(module, tmp_path):
    path = reference_file(tmp_path, maps((0, 0)).mean(axis=0))
    callback = HeadHeatmap(tau=0.5, reference_path=path, every_n_validations=2)
    for step in range(4):
        module.last_validation = validation(step, [0.1], GROWING[step])
        callback.on_validation_end(module.trainer, module)
    drawn = sorted(file.name for file in (module.facts.run_dir / "figures").iterdir())
    assert drawn == ["heads-000000.png", "heads-000002.png"]


def test_a_map_counts_the_kept_examples_and_none_is_drawn_of_nothing(module, tmp_path, monkeypatch):
    import callbacks.head_heatmap as heatmap

    drawn, head_maps = [], heatmap.head_maps

    def recorded(maps, *, title, tau):
        drawn.append((list(maps), title))
        return head_maps(maps, title=title, tau=tau)

    monkeypatch.setattr(heatmap, "head_maps", recorded)
    callback = HeadHeatmap(tau=0.5, reference_path=None)
    for step, rows in enumerate((kept(maps((0, 0))), kept(maps((0, 0)), 1, 3))):
        module.last_validation = validation(step, [0.1], rows)
        callback.on_validation_end(module.trainer, module)
    assert drawn == [(["this run, step 1"], "r: copy score, teacher_forced, n = 2 examples")]
