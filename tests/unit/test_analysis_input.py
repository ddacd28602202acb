"""Runs that are missing, torn, mixed or degenerate: named, left out, counted; never a crash."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sce.analysis.study import analyse
from sce.analysis.tasks import Limits
from sce.errors import InputError
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

WORLD = World(examples=6, layers=6, heads=4, num_untuned=4, num_learned=5)
FEW = Planted(num_settings=3, seeds=(0,))


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path / "runs", WORLD, FEW)


def reasons(found):
    return {skip.file.rsplit("/", 2)[-1]: skip.reason for skip in found.skipped}


def edit(folder, change):
    file = folder / "records.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(change(row)) for row in rows) + "\n")


def test_a_torn_last_row_is_named_and_the_rest_is_used(runs):
    file = runs[0] / "records.jsonl"
    file.write_text(file.read_text()[:-40])
    found = analyse(runs)
    (run,) = [r for r in found.groups[0].tasks[0].runs if r.name == runs[0].name]
    assert run.last.step == 12
    (skip,) = found.skipped
    assert (skip.run, skip.reason) == (runs[0].name, "line 3: the last line is torn")
    assert any("another number of steps" in w for w in found.groups[0].tasks[0].warnings)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "no step"),
        ("[1]", "no step"),
        ('{"step": 3}', "task is None"),
        ('{"step": 3, "task": "mdqa", "scorer": "copy", "mode": 1}', "mode is 1"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_line(runs, line, reason):
    file = runs[0] / "records.jsonl"
    file.write_text(f"{line}\n{file.read_text()}")
    found = analyse(runs)
    (skip,) = found.skipped
    assert skip.file == f"{runs[0]}/records.jsonl"
    assert skip.reason.startswith("line 1: ")
    assert reason in skip.reason
    assert found.num_runs == len(runs)


def test_missing_and_broken_things_are_left_out_and_counted(runs, tmp_path):
    (runs[0] / "records.jsonl").unlink()
    (runs[1] / "heads" / "step-000024.json").write_text('{"schema": "sce.heads/1", ')
    (runs[2] / "heads" / "step-000012.json").unlink()
    found = analyse([*runs, tmp_path / "nothing"])
    by_name = {run.name: run for run in found.groups[0].tasks[0].runs}
    assert runs[0].name not in by_name
    assert by_name[runs[1].name].last.step == 12
    assert [c.step for c in by_name[runs[2].name].checkpoints] == [0, 24]
    said = reasons(found)
    assert "no records.jsonl" in said[runs[0].name]
    assert "truncated" in said["step-000024.json"] or "JSON" in said["step-000024.json"]
    assert said["step-000012.json"].startswith("missing")
    assert said["nothing"] == "no such folder"
    assert found.num_runs == len(runs) + 1


def test_a_torn_npz_costs_bounds_alone(runs):
    for folder in runs:
        (folder / "heads" / "step-000024.npz").write_bytes(b"PK torn")
    found = analyse(runs)
    run = found.groups[0].tasks[0].runs[0]
    recall = run.last.measures["recall"]
    assert recall.value is not None
    assert recall.low is None
    assert all(skip.file.endswith(".npz") for skip in found.skipped)
    assert len(found.skipped) == len(runs)


def test_runs_of_other_models_and_scorers_are_grouped_apart_and_said_so(tmp_path):
    worlds = [WORLD, World(weights="b" * 64, layers=4, heads=4, num_learned=3, num_untuned=3)]
    worlds.append(World(scorer="insight", examples=6))
    folders = [
        folder
        for number, world in enumerate(worlds)
        for folder in write_runs(tmp_path / str(number), world, FEW)
    ]
    found = analyse(folders)
    assert len(found.groups) == 3
    keys = {(group.weights_sha256, group.scorer) for group in found.groups}
    assert keys == {("a" * 64, "copy"), ("b" * 64, "copy"), ("a" * 64, "insight")}
    assert "never compared" in found.warnings[0]
    for group in found.groups:
        assert len(group.tasks[0].runs) == 6  # three settings, two real seeds, the untuned model


def test_runs_scored_on_other_examples_are_said_to_be(runs):
    edit(runs[0], lambda row: row | {"eval_sha256": "other"})
    (task,) = analyse(runs).groups[0].tasks
    assert any(runs[0].name in w and "other validation questions" in w for w in task.warnings)


def test_runs_of_one_name_are_told_apart_and_a_folder_twice_is_one_run(tmp_path):
    for parent in ("a", "b"):
        write_runs(tmp_path / parent, WORLD, FEW)
    found = analyse([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    names = [run.name for run in found.groups[0].tasks[0].runs if run.kind != "untuned"]
    assert len(names) == len(set(names)) == 10
    assert all(name.startswith(("a/", "b/")) for name in names)


def test_settings_of_several_sizes_are_several_settings(tmp_path):
    for number in (100, 200):
        own = Tuned(0.5, 0.4, num_train=number)
        write_run(tmp_path / f"run-{number}", WORLD, own)
    write_run(tmp_path / "mixed", WORLD, Tuned(0.5, 0.4, mix="0.5 real/real + 0.5 low/low"))
    (task,) = analyse([tmp_path]).groups[0].tasks
    assert {s.setting: s.kind for s in task.settings} == {
        "high/high n=100": "synthetic",
        "high/high n=200": "synthetic",
        "0.5 real/real + 0.5 low/low n=200": "mixture",
        "untuned": "untuned",
    }
    assert task.reference is None
    assert any("no reference and no real run" in warning for warning in task.warnings)


def test_limited_sets_of_two_relations_are_two_settings(tmp_path):
    for relation in ("who", "when"):
        for seed in (0, 1):
            own = Tuned(0.5, 0.4, "limited", "real", seed)
            folder = write_run(tmp_path / f"{relation}-{seed}", WORLD, own)
            edit(folder, lambda row, relation=relation: row | {"limited": relation})
    (task,) = analyse([tmp_path]).groups[0].tasks
    found = {s.setting: (s.kind, len(s.seeds)) for s in task.settings if s.kind != "untuned"}
    assert found == {"limited/real (who)": ("limited", 2), "limited/real (when)": ("limited", 2)}


def test_degenerate_studies_give_none_and_never_a_crash(tmp_path):
    dead = World(num_untuned=0, num_learned=0, layers=3, heads=3, examples=3)
    for seed in (0, 1):
        write_run(tmp_path / f"same-{seed}", dead, Tuned(0.0, 0.3, seed=seed))
        write_run(tmp_path / f"real-{seed}", dead, Tuned(0.0, 0.3, "real", "real", seed))
    found = analyse([tmp_path])
    (group,) = found.groups
    (task,) = group.tasks
    assert task.runs[0].last.measures["recall"].value is None  # the reference has no head
    sets = [rho for rho in group.correlations if rho.measure.startswith("recall")]
    assert all(rho.found.spearman is None for rho in sets)
    assert not [q for q in group.questions if q.rho_difference.value is not None]
    json.dumps(found.to_json(), allow_nan=False)


def test_runs_without_single_examples_have_values_without_bounds(tmp_path):
    world = World(per_example=False, layers=6, heads=4, num_untuned=4, num_learned=5)
    (task,) = analyse(write_runs(tmp_path, world, FEW)).groups[0].tasks
    recall = task.runs[0].last.measures["recall"]
    assert (recall.value is None, recall.low, recall.n) == (False, None, 16)
    assert task.runs[0].last.source == "none"


def test_one_setting_alone_has_no_correlation(tmp_path):
    folders = write_runs(tmp_path, WORLD, Planted(num_settings=1))
    (group,) = analyse(folders).groups
    assert "beyond chance" not in group.answers[0]
    synthetic = [rho for rho in group.correlations if rho.points == "synthetic"]
    assert all(rho.found.spearman is None for rho in synthetic)


@pytest.mark.parametrize("what", ["empty", "torn", "step 0", "no scores", "nothing"])
def test_no_completed_run_is_one_error_that_says_why(tmp_path, what):
    folder = tmp_path / "run"
    steps = (0,) if what == "step 0" else (0, 12)
    write_run(folder, WORLD, Tuned(0.5, 0.4, steps=steps))
    records = folder / "records.jsonl"
    if what in ("empty", "torn"):
        records.write_text("" if what == "empty" else records.read_text()[:100])
    if what == "no scores":
        for file in (folder / "heads").iterdir():
            file.unlink()
    path = tmp_path / "elsewhere" if what == "nothing" else folder
    with pytest.raises(InputError, match="no completed run") as raised:
        analyse([path])
    assert str(path) in str(raised.value)


def test_a_reference_that_fits_no_run_is_refused(runs, tmp_path):
    other = World(weights="b" * 64, examples=6, layers=6, heads=4, num_untuned=4, num_learned=5)
    real = Tuned(1.0, 0.7, "real", "real", 100)
    folder = write_run(tmp_path / "other", other, real)
    file = write_reference(tmp_path / "ref.json", other, [(folder, real)])
    with pytest.raises(InputError, match="fits no run: it is of weights bbbbbbbbbbbb"):
        analyse(runs, [file])
    with pytest.raises(InputError, match=r"none\.json"):
        analyse(runs, [tmp_path / "none.json"])


@pytest.mark.parametrize("limits", [Limits(tau=-1.0), Limits(k=0), Limits(tau=float("nan"))])
def test_limits_that_are_none_are_refused(runs, limits):
    with pytest.raises(InputError, match="--"):
        analyse(runs, limits=limits)


def test_a_study_names_what_has_not_run_or_failed(tmp_path):
    root = write_study(tmp_path, [WORLD], FEW)
    jobs = json.loads((root / "study.json").read_text())["jobs"]
    (root / "jobs").mkdir()
    names = [job["name"] for job in jobs if job["folder"]]
    for name in names[2:]:
        (root / "jobs" / f"{name}.json").write_text('{"exit_code": 0}')
    (root / "jobs" / f"{names[0]}.json").write_text('{"exit_code": 1, "error": "out of memory"}')
    found = analyse([root])
    said = {skip.run: skip.reason for skip in found.skipped}
    failed = {names[0]: "failed: out of memory", names[1]: "not finished"}
    assert said == {**failed, "mdqa-baselines": "not finished"}
    assert (found.num_runs, found.num_left_out) == (len(names), 2)


def test_a_study_that_cannot_be_read_is_looked_through_as_a_folder(tmp_path):
    root = write_study(tmp_path, [WORLD], FEW)
    (root / "study.json").write_text('{"schema": "sce.study/9"}')
    found = analyse([root / "runs"])
    assert found.study is None
    with pytest.raises(InputError, match=r"study\.json: not a study"):
        analyse([root])


def test_broken_interventions_are_left_out(tmp_path):
    root = write_study(tmp_path, [WORLD], FEW)
    (root / "knockout" / "mdqa" / "results.json").write_text("{")
    (root / "baselines" / "mdqa" / "results.json").write_text(
        '{"schema": "sce.baselines/1", "rows": [{"model": "real"}]}'
    )
    found = analyse([root])
    assert [each.method for each in found.groups[0].tasks[0].interventions] == ["patch"]
    assert len(found.skipped) == 2


def test_a_knockout_of_a_run_that_is_not_there_is_left_out_and_not_called_the_real_one_s(tmp_path):
    root = write_study(tmp_path, [WORLD], FEW)
    file = write_knockout(root / "knockout" / "mdqa-gone-seed0" / "results.json")
    found = analyse([root])
    (task,) = found.groups[0].tasks
    assert [each.method for each in task.interventions] == ["knockout", "patch"]
    assert [(skip.file, skip.reason) for skip in found.skipped] == [
        (str(file), "of no run that is in the analysis")
    ]


def test_nan_in_records_is_none(runs):
    edit(runs[0], lambda row: row | {"answer_nll": float("nan")})
    (task,) = analyse(runs).groups[0].tasks
    assert task.runs[0].last.measures["answer_nll"].value is None
    assert np.isfinite(task.runs[1].last.measures["answer_nll"].value)


def test_what_a_study_s_jobs_left_out_or_failed_at_is_said(tmp_path):
    study = write_study(tmp_path / "s", [WORLD], FEW)
    run, patched = (folder.name for folder in sorted((study / "runs").iterdir())[:2])
    for job, state in {
        run: {"exit_code": 0, "left_out": ["sets=intersection is empty"]},
        patched: {"exit_code": 1, "error": "no space left"},
        "mdqa-baselines": {"exit_code": 1, "error": "out of memory", "left_out": ["no heads"]},
    }.items():
        (study / "jobs").mkdir(exist_ok=True)
        (study / "jobs" / f"{job}.json").write_text(json.dumps(state))
    for folder in (study / "runs").iterdir():
        (study / "jobs" / f"{folder.name}.train.done").touch()
    found = {(skip.run, skip.reason) for skip in analyse([study]).skipped}
    assert found == {
        (run, "left out: sets=intersection is empty"),
        (patched, "failed after its training: no space left"),
        ("mdqa-baselines", "left out: no heads"),
        ("mdqa-baselines", "failed: out of memory"),
    }


def test_of_loose_real_runs_the_largest_size_is_real_data_and_fewer_examples_limit_it(tmp_path):
    real = Tuned(1.0, 0.7, "real", "real")
    sizes = ((384, 0), (384, 1), (96, 0))
    for size, seed in sizes:
        run = replace(real, num_train=size, seed=seed)
        write_run(tmp_path / f"real-{size}-{seed}", WORLD, run)
    (task,) = analyse([tmp_path]).groups[0].tasks
    assert {run.name for run in task.runs if run.in_reference} == {"real-384-0", "real-384-1"}
    assert {run.name: run.kind for run in task.runs}["real-96-0"] == "limited"


def test_a_run_that_learnt_from_far_fewer_answer_tokens_is_named(runs):
    for number, folder in enumerate(runs):
        edit(folder, lambda row, n=number: row | {"target_tokens": 682 if n == 0 else 1900 + n})
    (task,) = analyse(runs).groups[0].tasks
    (warning,) = [warning for warning in task.warnings if "answer tokens" in warning]
    assert warning.startswith(f"{runs[0].name} (682): trained on so many")
    edit(runs[0], lambda row: row | {"target_tokens": 1500})
    assert not any("answer tokens" in w for w in analyse(runs).groups[0].tasks[0].warnings)


def test_settings_that_two_studies_call_alike_stay_two(tmp_path):
    studies = []
    for name in ("pilot", "full"):
        studies.append(write_study(tmp_path / name, [WORLD], FEW))
        file = studies[-1] / "study.json"
        file.write_text(file.read_text().replace("a-study", name))
    (task,) = analyse(studies).groups[0].tasks
    names = {setting.setting for setting in task.settings if setting.kind == "synthetic"}
    assert len(names) == 2 * FEW.num_settings
    assert all(name.startswith(("pilot: ", "full: ")) for name in names)


def test_two_studies_of_one_name_are_told_apart_by_their_folders_and_one_given_twice_is_one(
    tmp_path,
):
    studies = [write_study(tmp_path / name, [WORLD], FEW) for name in "ab"]
    (task,) = analyse(studies).groups[0].tasks
    names = {setting.setting for setting in task.settings if setting.kind == "synthetic"}
    assert len(names) == 2 * FEW.num_settings
    patched = {each.setting for each in task.interventions if each.method == "patch"}
    assert {name.partition(": ")[0] for name in patched} == {str(study) for study in studies}
    (task,) = analyse([studies[0], studies[0]]).groups[0].tasks
    assert not any(":" in setting.setting for setting in task.settings)


def test_a_run_that_is_there_twice_is_one(tmp_path, runs):
    note = runs[0] / "adapter" / "sce.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"adapter_sha256": "a" * 64}))
    shutil.copytree(runs[0], tmp_path / "backup" / "again")
    found = analyse([*runs, tmp_path / "backup"])
    (task,) = found.groups[0].tasks
    assert "again" not in {run.name for run in task.runs}
    assert all(len(setting.runs) == len(set(setting.runs)) for setting in task.settings)
    assert (
        reasons(found)["again"]
        == f"its adapter is that of {runs[0].name}: a run that is there twice is one"
    )
    assert found.num_runs == len(runs) + 1  # left out, and counted once


def test_a_run_without_scores_is_counted_once(runs):
    for file in (runs[0] / "heads").iterdir():
        file.unlink()
    assert analyse(runs).num_runs == len(runs)


def test_of_two_studies_references_one_is_used_and_no_member_of_either_is_a_point(tmp_path):
    """The second one's real runs for its reference were drawn by other seeds."""
    studies = [
        write_study(tmp_path / name, [WORLD], Planted(num_settings=3, seeds=(0,), real_seeds=seeds))
        for name, seeds in (("a", (100, 101)), ("b", (200, 201)))
    ]
    (task,) = analyse(studies).groups[0].tasks
    assert task.reference.source.endswith("a/reference/mdqa.json")
    (warning,) = [w for w in task.warnings if "is not used" in w]
    assert warning.startswith(f"reference {studies[1]}/reference/mdqa.json is not used")
    assert not [run.name for run in task.runs if run.kind == "real" and run.is_point]


def test_two_real_runs_one_of_them_the_reference_give_no_ceiling(tmp_path):
    real = [Tuned(1.0, 0.7, "real", "real", seed) for seed in (100, 101)]
    folders = [write_run(tmp_path / f"real-{r.seed}", WORLD, r) for r in real]
    file = write_reference(tmp_path / "ref.json", WORLD, [(folders[0], real[0])])
    other = write_run(tmp_path / "x", WORLD, Tuned(0.5, 0.5))
    (task,) = analyse([*folders, other], [file]).groups[0].tasks
    assert task.ceiling == {}
    assert any(
        warning.startswith("no ceiling: one real run is the ref") for warning in task.warnings
    )
    third = write_run(tmp_path / "third", WORLD, Tuned(1.0, 0.7, "real", "real", 102))
    (task,) = analyse([*folders, other, third], [file]).groups[0].tasks
    assert task.ceiling["recall"].n == 2


def test_interventions_of_another_model_s_study_stay_with_that_model(tmp_path):
    other = World(examples=6, layers=6, heads=4, num_untuned=4, num_learned=5, weights="b" * 64)
    studies = [write_study(tmp_path / n, [w], FEW) for n, w in (("a", WORLD), ("b", other))]
    for group in analyse(studies).groups:
        (task,) = group.tasks
        assert len(task.baselines) == 8
        assert {each.file.startswith(str(studies[0])) for each in task.interventions} == {
            group.weights_sha256 == WORLD.weights
        }


def test_a_file_that_is_named_comes_before_a_study_s_own(tmp_path):
    study = write_study(tmp_path / "s", [WORLD], FEW)
    runs = [(f, Tuned(1.0, 0.7, "real", "real", 0)) for f in (study / "runs").glob("*real-real*")]
    file = write_reference(tmp_path / "mine.json", WORLD, runs[:1])
    (task,) = analyse([study], [file]).groups[0].tasks
    assert task.reference.source == str(file)
    file.write_text(file.read_text().replace("data of mdqa", "data of others"))
    found = analyse([study], [file])
    assert found.groups[0].tasks[0].reference.source.endswith("reference/mdqa.json")
    assert any(f"reference {file} is not used" in warning for warning in found.warnings)


def test_a_ceiling_of_other_thresholds_is_none(tmp_path):
    real = [Tuned(1.0, 0.7, "real", "real", seed) for seed in (100, 101)]
    folders = [write_run(tmp_path / f"real-{r.seed}", WORLD, r) for r in real]
    file = write_reference(tmp_path / "ref.json", WORLD, list(zip(folders, real, strict=True)))
    runs = [write_run(tmp_path / "x", WORLD, Tuned(0.5, 0.5))]
    assert analyse(runs, [file]).groups[0].tasks[0].ceiling["recall"].n == 2
    assert analyse(runs, [file], Limits(tau=0.05)).groups[0].tasks[0].ceiling == {}
