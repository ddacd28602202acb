"""Early stopping by a head measure, and the curves behind recall: by hand, and in whole runs."""

import json
import logging
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from callbacks import RecallAccuracyCorrelation, RecallEarlyStopping, RunRecords, ScoreCurves
from runs import configured, run_train
from sce.commands import TrainConfig
from sce.decode import DecodeSettings
from sce.errors import InputError
from sce.module import SceModule
from sce.options import OptimizerOptions
from sce.records import HeadScores, read_jsonl
from sce.stats import pearson, recall_curves, spearman, split_half, with_bands
from sce.validation import Place, Prediction, Validation
from test_records import FACTS

KEY = ("copy", "teacher_forced")
METRIC = "heads/recall_learned"


@pytest.fixture
def module(tmp_path):
    (tmp_path / "run").mkdir()
    module = SceModule(
        torch.nn.Identity,
        str,
        optimizer=OptimizerOptions(),
        settings=DecodeSettings(),
        facts=replace(FACTS, run_dir=tmp_path / "run", shape=(2, 3)),
    )
    module._trainer = SimpleNamespace(
        callback_metrics={},
        is_global_zero=True,
        global_step=0,
        should_stop=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    return module


# -- early stopping -------------------------------------------------------------------------------


def look(callback, module, step: int, value: float | None) -> bool:
    """One validation; whether the run is to stop."""
    trainer = module._trainer
    trainer.global_step = step
    trainer.callback_metrics = dict.fromkeys(
        ("heads/num_heads", "heads/num_examples", "val/answer_nll", "val/f1", "val/f1_low"),
        torch.tensor(3.0),
    )
    if value is not None:
        trainer.callback_metrics[METRIC] = torch.tensor(value)
    callback.on_validation_end(trainer, module)
    return trainer.should_stop


def stopped_at(module, values, **options) -> int | None:
    callback = RecallEarlyStopping(**options)
    for step, value in enumerate(values):
        if look(callback, module, step, value):
            return step
    return None


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.2, 0.1], {"patience": 2}, 4),
        ([0.0, 0.1, 0.2, 0.2, 0.1], {"patience": 3}, None),
        ([0.0, 0.1, 0.1, 0.2, 0.2, 0.2], {"patience": 2}, 5),  # a rise begins the count anew
        ([0.5, 0.1, 0.2, 0.3], {"patience": 3}, 3),  # rises below the best are none
        ([0.0, 0.05, 0.1, 0.15], {"patience": 1, "min_delta": 0.05}, 1),
        ([0.0, 0.04, 0.08, 0.12], {"patience": 2, "min_delta": 0.07}, None),
        ([0.5, 0.1, 0.2, 0.3, 0.3], {"patience": 1, "start_step": 1}, 4),
        # What does not exist is neither a rise nor patience.
        ([0.2, 0.1, math.nan, math.nan, 0.1], {"patience": 2}, 4),
        ([math.nan] * 6, {"patience": 1}, None),
        ([math.nan, 0.0, 0.0], {"patience": 1}, 2),
    ],
)
def test_it_stops_when_the_figure_has_not_risen_for_so_many_validations(
    module, values, options, expected
):
    assert stopped_at(module, values, **options) == expected


def test_one_line_says_why(module, caplog):
    with caplog.at_level(logging.INFO, logger="sce"):
        assert stopped_at(module, [0.25, math.nan, 0.1], patience=1) == 2
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "heads/recall_learned does not exist at step 1, which does not count",
        "stopping at step 2: heads/recall_learned has not risen by more than 0 above the 0.250 of "
        "step 0 for 1 validations",
    ]


def test_a_figure_that_is_never_there_is_refused_after_the_first_trained_validation(module):
    callback = RecallEarlyStopping(start_step=100)
    look(callback, module, 0, None)
    with pytest.raises(InputError, match=r"metric=heads/recall_learned.* choose from val/f1$"):
        look(callback, module, 4, None)


@pytest.mark.parametrize(
    "metric",
    [
        *("val/answer_nll", "heads/num_heads", "heads/num_examples", "heads/num_reference_heads"),
        *("heads/recall_base", "heads/recall_null", "heads/recall_null_layer", "f1"),
    ],
)
def test_figures_that_need_not_rise_in_a_better_run_are_refused(metric):
    with pytest.raises(InputError, match=f"metric={metric}: .* need not rise .*, val/f1, "):
        RecallEarlyStopping(metric=metric)


def test_values_out_of_range_are_one_clear_line():
    for options in ({"patience": 0}, {"min_delta": -0.1}, {"start_step": -1}):
        (name,) = options
        with pytest.raises(InputError, match=rf"early_stopping\.{name} must be >= "):
            RecallEarlyStopping(**options)


def test_ranks_stop_together(module):
    asked = []

    def decide(decision, all):
        asked.append((decision, all))
        return True  # another rank's wish

    module._trainer.strategy.reduce_boolean_decision = decide
    assert stopped_at(module, [0.0, 0.5], patience=5) == 0
    assert asked == [(False, False)]


def test_it_goes_on_waiting_after_a_resume_and_stays_stopped(module):
    first = RecallEarlyStopping(patience=3)
    for step, value in enumerate([0.2, 0.1, 0.1]):
        assert not look(first, module, step, value)
    resumed = RecallEarlyStopping(patience=3)
    resumed.load_state_dict(first.state_dict())
    resumed.on_train_start(module._trainer, module)
    assert not module._trainer.should_stop
    assert not look(resumed, module, 2, 0.1)  # the same step again counts once
    assert look(resumed, module, 3, 0.1)
    module._trainer.should_stop = False
    again = RecallEarlyStopping(patience=3)
    again.load_state_dict(resumed.state_dict())
    again.on_train_start(module._trainer, module)
    assert module._trainer.should_stop
    module._trainer.should_stop = False
    patient = RecallEarlyStopping(patience=4)
    patient.load_state_dict(resumed.state_dict())
    patient.on_train_start(module._trainer, module)
    assert not module._trainer.should_stop


def export(module, step: int) -> None:
    """What AdapterExport leaves."""
    folder = module.facts.run_dir / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "sce.json").write_text(str(step))


def exported(module) -> str:
    return (module.facts.run_dir / "adapter" / "sce.json").read_text()


@pytest.mark.parametrize("restore", [False, True])
def test_the_best_adapter_is_left_if_asked_for(module, restore):
    callback = RecallEarlyStopping(patience=9, restore=restore)
    look(callback, module, 0, 0.0)
    for step, value in enumerate([0.1, 0.4, 0.2], start=1):
        export(module, step)
        look(callback, module, step, value)
    callback.on_train_end(module._trainer, module)
    assert exported(module) == ("2" if restore else "3")
    # A last validation after training exports its own step, and is not the best either.
    module._trainer.state.fn = TrainerFn.VALIDATING
    export(module, 5)
    look(callback, module, 5, 0.3)
    assert exported(module) == ("2" if restore else "5")
    assert not (module.facts.run_dir / ".adapter-new").exists()


def test_the_best_adapter_of_a_run_that_exports_none_is_refused():
    options = ["callbacks=recall_early_stopping", "callbacks.early_stopping.restore=true"]
    with pytest.raises(InputError, match=r"early_stopping\.restore=true needs the exported"):
        configured("train", TrainConfig, [*options, "callbacks.adapter=null"])


def test_where_the_untuned_model_is_the_best_the_last_adapter_stays(module):
    callback = RecallEarlyStopping(restore=True)
    look(callback, module, 0, 0.5)
    export(module, 1)
    look(callback, module, 1, 0.1)
    callback.on_train_end(module._trainer, module)
    assert exported(module) == "1"


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def steps_of(run_dir) -> list[int]:
    return [row["step"] for row in read_jsonl(run_dir / "records.jsonl")]


def test_a_run_stops_early_is_resumed_and_stays_stopped(tiny_folder, own_folder):
    # F1 is at most 1 and rises by no more than that: the first is the best.
    stopping = [
        *("callbacks=recall_early_stopping", "callbacks.early_stopping.metric=val/f1"),
        "callbacks.early_stopping.min_delta=1",
        *("callbacks.early_stopping.start_step=1", "callbacks.early_stopping.restore=true"),
        *("val_every=1", "trainer.max_steps=6", "optimizer.lr=0.01", "run_dir=mine"),
    ]
    patience = "callbacks.early_stopping.patience={}"
    run_dir = run_train(tiny_folder, *stopping, patience.format(2))
    assert steps_of(run_dir) == [0, 1, 2, 3]
    log = (run_dir / "log.txt").read_text()
    assert "stopping at step 3: val/f1 has not risen by more than 1 above the" in log
    assert json.loads((run_dir / "adapter" / "sce.json").read_text())["step"] == 1
    run_train(tiny_folder, *stopping, patience.format(2), "resume=true")
    assert steps_of(run_dir) == [0, 1, 2, 3]
    run_train(tiny_folder, *stopping, patience.format(3), "resume=true")
    assert steps_of(run_dir) == [0, 1, 2, 3, 4]
    assert json.loads((run_dir / "adapter" / "sce.json").read_text())["step"] == 1


def test_a_figure_that_the_run_has_not_is_refused_by_name(module):
    callback = RecallEarlyStopping(metric="heads/greedy_recall")
    with pytest.raises(InputError, match=r"heads/greedy_recall: this run has no .* from val/f1$"):
        look(callback, module, 1, None)


# -- curves ---------------------------------------------------------------------------------------


def validation(step: int, scores: np.ndarray, f1=(1.0, 0.0, 0.5, 0.0)) -> Validation:
    """Four answers at depths 0.1, 0.2, 0.6, 1.0; reference examples at 0, 1/n, 2/n and so on."""
    depths, lengths = (0.1, 0.2, 0.6, 1.0), (10, 20, 30, 40)
    predictions = tuple(
        Prediction(str(n), "", value, 0.0, place=Place(str(n), depths[n], lengths[n]))
        for n, value in enumerate(f1)
    )
    n = len(scores)
    places = tuple(Place(str(i), i / n, 100 + 10 * i) for i in range(n))
    return Validation(step, predictions, 1.0, places, {KEY: scores})


def random_scores(seed: int = 0, examples: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).random((examples, 2, 3))


def curves_of(module, step: int = 4) -> dict:
    file = module.facts.run_dir / "curves" / f"step-{step:06d}.json"
    return json.loads(file.read_text())


def written(module, *validations: Validation, reference=None, tau: float = 0.5, **more) -> dict:
    path = None
    if reference is not None:
        path = str(module.facts.run_dir / "reference.json")
        count = len(more.get("per_example", range(5)))
        HeadScores("copy", "teacher_forced", "exact", reference, count, **more).save(
            module.facts.run_dir / "reference.json"
        )
    callback = ScoreCurves(tau=tau, k=2, reference_path=path)
    callback.setup(module._trainer, module, "fit")
    for each in validations:
        module.last_validation = each
        callback.on_validation_end(module._trainer, module)
    return curves_of(module, validations[-1].step)


def test_curves_are_those_of_the_statistics_against_reference_and_step_0(module):
    base, now, reference = random_scores(0), random_scores(1), random_scores(2).mean(axis=0)
    found = written(module, validation(0, base), validation(4, now), reference=reference)
    reference = reference.round(9)
    expected = recall_curves(now.mean(axis=0), reference, base.mean(axis=0))
    expected = with_bands(expected, now, reference, base, seed=0)
    assert found["curves"] == json.loads(json.dumps(expected.to_json()))
    assert found["curves"]["n"] == 8
    assert any(value is not None for value in found["curves"]["by_k"]["recall_learned_low"])
    assert any(value is not None for value in found["curves"]["by_k"]["recall_learned"])
    assert found["split_half"] == split_half(now, base, tau=0.5, k=2, seed=0)
    assert found["split_half"]["n"] == found["num_kept_examples"] == 8
    assert (found["step"], found["num_reference_examples"], found["num_examples"]) == (4, 8, 4)


def test_a_reference_of_the_run_s_examples_is_drawn_with_them(module):
    now, real = random_scores(1), random_scores(2)
    same = {"data_sha256": module.facts.reference_sha256}
    scores = {"reference": real.mean(axis=0), "per_example": real}
    found = written(module, validation(4, now), **scores, provenance=same)["curves"]
    points = recall_curves(now.mean(axis=0), real.mean(axis=0))
    joint = with_bands(points, now, real.astype(np.float32), None, seed=0)
    assert found["by_k"]["recall_low"] == joint.by_k["recall_low"]
    assert any(found["by_tau"]["num_reference_heads_low"])
    other = written(module, validation(4, now), **scores, provenance={"data_sha256": "other"})
    assert not any(other["curves"]["by_tau"]["num_reference_heads_low"])
    assert other["curves"]["by_tau"]["recall_low"] != joint.by_tau["recall_low"]


def test_bins_by_hand(module):
    reference = np.array([[0.9, 0, 0], [0, 0, 0.8]])
    scores = np.zeros((4, 2, 3))
    scores[:, 0, 0] = [1.0, 0.0, 0.0, 0.0]
    scores[:, 1, 2] = [0.5, 0.5, 0.0, 1.0]
    scores[:, 0, 1] = 1.0  # not one of the reference's
    found = written(module, validation(4, scores), reference=reference)
    f1 = [(b["low"], b["n"], b["mean"]) for b in found["f1_by_depth"]]
    assert f1 == [(0, 2, 0.5), (0.25, 0, None), (0.5, 1, 0.5), (0.75, 1, 0.0)]
    heads = [(b["low"], b["n"], b["mean"]) for b in found["heads_by_depth"]]
    assert heads == [(0, 1, 0.75), (0.25, 1, 0.25), (0.5, 1, 0.0), (0.75, 1, 0.5)]
    assert (found["heads_of"], found["num_heads"]) == ("reference", 2)
    first = found["f1_by_depth"][0]
    assert first["mean_low"] <= first["mean"] <= first["mean_high"]
    assert [(b["n"], b["mean"]) for b in found["f1_by_length"]] == [
        (1, 1.0),
        (1, 0.0),
        (1, 0.5),
        (1, 0.0),
    ]
    assert [b["n"] for b in found["heads_by_length"]] == [1, 1, 1, 1]


def test_without_a_reference_there_are_no_curves_and_the_bins_are_there(module):
    scores = np.zeros((4, 2, 3))
    scores[:, 0, 0] = [1.0, 1.0, 1.0, 0.5]
    found = written(module, validation(4, scores))
    assert found["curves"] is None
    assert (found["heads_of"], found["num_heads"]) == ("run", 1)
    assert [b["mean"] for b in found["heads_by_depth"]] == [1.0, 1.0, 1.0, 0.5]
    none = written(module, validation(8, np.zeros((4, 2, 3))))
    assert none["heads_by_depth"] is None
    assert none["heads_by_length"] is None
    assert len(none["f1_by_depth"]) == 4


def test_examples_that_the_scorer_did_not_keep_count_nowhere(module):
    kept = random_scores(3, examples=6)
    scores = np.concatenate([kept, np.full((2, 2, 3), np.nan)])
    reference = random_scores(4).mean(axis=0)
    found = written(module, validation(4, scores), reference=reference)
    assert (found["num_reference_examples"], found["num_kept_examples"]) == (8, 6)
    points = recall_curves(kept.mean(axis=0), reference.round(9), None)
    expected = with_bands(points, kept, reference.round(9), None, seed=0).to_json()
    assert found["curves"] == json.loads(json.dumps(expected))
    assert found["curves"]["n"] == 6
    assert found["split_half"]["n"] == 6
    assert sum(b["n"] for b in found["heads_by_depth"]) == 6
    assert found["heads_by_depth"][-1]["n"] == 0


def test_too_few_examples_have_no_halves(module):
    found = written(module, validation(4, random_scores(0, examples=3)))
    assert found["split_half"] is None


def test_other_ranks_write_no_curves(module):
    module._trainer.is_global_zero = False
    with pytest.raises(FileNotFoundError):
        written(module, validation(4, random_scores()))


def test_the_untuned_model_s_scores_survive_a_checkpoint(module):
    reference, base, now = (random_scores(seed).mean(axis=0) for seed in (2, 0, 1))
    whole = written(
        module,
        validation(0, random_scores(0)),
        validation(4, random_scores(1)),
        reference=reference,
    )
    path = str(module.facts.run_dir / "reference.json")
    first = ScoreCurves(tau=0.5, k=2, reference_path=path)
    module.last_validation = validation(0, random_scores(0))
    first.on_validation_end(module._trainer, module)
    resumed = ScoreCurves(tau=0.5, k=2, reference_path=path)
    resumed.load_state_dict(first.state_dict())
    resumed.setup(module._trainer, module, "fit")
    module.last_validation = validation(4, random_scores(1))
    resumed.on_validation_end(module._trainer, module)
    assert curves_of(module) == whole
    assert recall_curves(now, reference, base).by_tau["recall_base"][1] is not None


def test_a_run_writes_curves_after_every_validation(tiny_folder, own_folder):
    run_dir = run_train(tiny_folder)
    names = sorted(path.name for path in (run_dir / "curves").iterdir())
    assert names == [f"step-{step:06d}.json" for step in (0, 2, 4)]
    found = json.loads((run_dir / "curves" / names[-1]).read_text())
    assert (found["num_examples"], found["num_reference_examples"]) == (6, 5)
    assert sum(b["n"] for b in found["f1_by_depth"]) == 6
    assert sum(b["n"] for b in found["f1_by_length"]) == 6


# -- recall with accuracy -------------------------------------------------------------------------

CORRELATIONS = ("spearman", "pearson", "differences")


def checkpoints(count: int, f1: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """The correlations after `count` checkpoints, against a reference of heads 0-0 and 0-1."""
    callback = RecallAccuracyCorrelation(tau=0.5, reference_path=None, num_resamples=50)
    callback._in_r = np.array([[True, True, False], [False, False, False]])
    points = [{"step": n, **callback._point(scores[n], f1[n])} for n in range(count)]
    callback.load_state_dict({"points": points})
    return callback.correlations()


def rising(count: int = 9, examples: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """F1 [checkpoints, examples] and scores [checkpoints, examples, 2, 3], both rising."""
    rng = np.random.default_rng(0)
    share = 0.1 + 0.09 * np.arange(count)
    f1 = (rng.random((count, examples)) < share[:, None]).astype(float)
    return f1, (rng.random((count, examples, 2, 3)) < share[:, None, None, None]).astype(float)


def test_all_three_correlations_have_an_interval_over_the_same_resamples_of_examples():
    f1, scores = rising()
    found = checkpoints(8, f1, scores)
    rng, draws = np.random.default_rng(0), []
    for _ in range(50):
        own, other = rng.integers(12, size=12), rng.integers(12, size=12)
        x = (scores[:8, other].mean(axis=1)[:, 0, :2] > 0.5).mean(axis=1)
        y = f1[:8, own].mean(axis=1)
        steps = pearson(np.diff(x), np.diff(y))
        draws.append(dict(zip(CORRELATIONS, (spearman(x, y), pearson(x, y), steps), strict=True)))
    for name in CORRELATIONS:
        there = [draw[name] for draw in draws if draw[name] is not None]
        assert len(there) > 25
        limits = [found[f"correlation/recall_f1_{name}_{end}"] for end in ("low", "high")]
        assert limits == pytest.approx(np.quantile(there, [0.025, 0.975]).tolist())


def test_below_eight_checkpoints_no_correlation_has_an_interval():
    found = checkpoints(7, *rising())
    names = {f"correlation/recall_f1_{name}" for name in CORRELATIONS}
    assert set(found) == {"correlation/n", *names}


def test_an_accuracy_that_is_constant_has_no_correlation_and_no_interval():
    f1, scores = rising()
    found = checkpoints(9, 0 * f1, scores)
    assert found.pop("correlation/n") == 9
    assert len(found) == 9
    assert set(found.values()) == {None}


# -- records --------------------------------------------------------------------------------------


def test_predictions_have_every_metric_and_null_for_a_likelihood_that_diverged(module):
    more = {"substring_exact_match": 1.0}
    answers = (
        Prediction("a", "in\u2028Rome", 0.5, 0.0, more, None, 1.25, 2),
        Prediction("b", "Oslo", 0.0, 0.0, {"substring_exact_match": 0.0}, None, math.nan, 3),
    )
    module.last_validation = Validation(4, answers, math.nan, (), {})
    RunRecords().on_validation_end(module._trainer, module)
    lines = (module.facts.run_dir / "predictions" / "step-000004.jsonl").read_text("utf-8")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines.split("\n") if line]
    assert rows[0] == {
        **{"id": "a", "prediction": "in\u2028Rome", "f1": 0.5, "exact_match": 0.0},
        **{"substring_exact_match": 1.0, "nll": 1.25, "num_labels": 2},
    }
    assert (rows[1]["nll"], rows[1]["num_labels"]) == (None, 3)
