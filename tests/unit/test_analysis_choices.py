"""Which of two kinds of data a measure would pick, and whether that is the better one."""

import json

import numpy as np
import pytest

from sce.analysis.study import analyse
from sce.analysis.tables import tables
from study_runs import Tuned, World, write_run

WORLD = World(num_own=1)
# Context of the setting, seed, F1, quality (share of heads learned), validation loss.
RUNS = (
    ("real", 0, 0.9, 0.9, 0.5),
    ("high", 0, 0.8, 0.6, 1.0),  # two seeds that lie around 0.5
    ("high", 1, 0.2, 0.6, 1.0),
    ("low", 0, 0.5, 0.3, 1.1),
    ("template", 0, 0.1, 1.0, 0.2),
)


def answered(folder, f1):
    """Predictions whose F1 scatter around a mean."""
    scatter = np.random.default_rng(0).uniform(-0.05, 0.05, 64)
    rows = [{"id": f"{n:03d}", "prediction": "", "f1": f1 + s} for n, s in enumerate(scatter)]
    (folder / "predictions").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "predictions" / "step-000024.jsonl").write_text(lines)


@pytest.fixture
def runs(tmp_path):
    folders = []
    for context, seed, f1, quality, nll in RUNS:
        run = Tuned(quality, f1, "high", context, seed, nll=nll)
        folders.append(write_run(tmp_path / f"{context}-{seed}", WORLD, run))
        answered(folders[-1], f1)
    real = Tuned(1.0, 0.95, "real", "real", 100)
    return [*folders, write_run(tmp_path / "reference", WORLD, real)]


def test_pairs_that_differ_are_counted_by_whether_the_measure_has_their_order(runs):
    """high (0.5 in the mean) and low (0.5) do not differ; the five other pairs do."""
    (group,) = analyse(runs).groups
    (task,) = group.tasks
    own = {each.setting.removeprefix("high/"): each.measures for each in task.settings}
    better = [("real", "high"), ("real", "low"), ("real", "template")]
    better += [("high", "template"), ("low", "template")]
    found = {each.measure: (each.right, each.wrong, each.tied) for each in group.choices}
    assert found["answer_nll"] == (2, 3, 0)
    for measure in ("recall", "cosine"):
        value = {name: measures[measure].value or 0 for name, measures in own.items()}
        gaps = [value[a] - value[b] for a, b in better]
        signs = [(g > 0) - (g < 0) for g in gaps]
        assert found[measure] == tuple(signs.count(sign) for sign in (1, -1, 0))
    assert {each.num_settings for each in group.choices} == {4}
    assert len(tables(analyse(runs))["choices"]) == len(group.choices)
    told = "of 5 pairs of 4 settings whose F1 differ, validation loss picks the better one in 2"
    assert any(told in line for line in group.answers)


def test_a_setting_whose_predictions_cannot_be_read_is_named_and_left_out(runs):
    (runs[0] / "predictions" / "step-000024.jsonl").write_text('{"id": "000"\n')
    found = analyse(runs)
    assert {each.num_settings for each in found.groups[0].choices} == {3}
    assert any("step-000024.jsonl" in skip.file for skip in found.skipped)


def test_answers_may_hold_ends_of_lines_of_other_alphabets(runs):
    file = runs[0] / "predictions" / "step-000024.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"prediction": "a\u2028b\x85c"} for row in rows]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    found = analyse(runs)
    assert {each.num_settings for each in found.groups[0].choices} == {4}
    assert not found.skipped


def test_runs_without_predictions_have_none(runs):
    for folder in runs[:-2]:
        (folder / "predictions" / "step-000024.jsonl").unlink()
    found = analyse(runs)
    assert not found.groups[0].choices
    assert not any("predictions" in skip.file for skip in found.skipped)
