"""Files of head scores, references that fit or do not, and rows of a record."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sce.errors import InputError
from sce.headset import average
from sce.records import (
    HeadScores,
    RunFacts,
    append_jsonl,
    drop_rows_after,
    read_jsonl,
    write_json,
)
from sce.reference import greedy_sibling, load_reference, reference_commands

FACTS = RunFacts(
    run="r",
    run_dir=Path("r"),
    seed=0,
    task="mdqa",
    concept="high",
    context="high",
    train_sha256="t",
    eval_sha256="e",
    reference_sha256="d",
    prompt_sha256="p",
    weights_sha256="w",
    scorer="copy",
    mode="teacher_forced",
    match="exact",
    tau=0.1,
    k=2,
    context_tokens=100,
    shape=(3, 4),
    rope={"theta": 1e4, "was": 1e4},
    dtype="float32",
)


def head_scores(seed=0, **changes) -> HeadScores:
    per_example = np.random.default_rng(seed).random((5, 3, 4))
    provenance = {
        "weights_sha256": "w",
        "data_sha256": "d",
        "prompt_sha256": "p",
        "context_tokens": 100,
        "rope": {"theta": 1e4, "was": 1e4},
        "dtype": "float32",
        "adapter_sha256": f"a{seed}",
        "adapter": {"seed": seed, "train_sha256": f"t{seed}", "concept": "real"},
    }
    values = {
        "scorer": "copy",
        "mode": "teacher_forced",
        "match": "exact",
        "scores": per_example.mean(axis=0),
        "num_examples": 5,
        "per_example": per_example,
        "provenance": provenance,
    }
    return HeadScores(**{**values, **changes})


def test_head_scores_come_back_as_they_went_out(tmp_path):
    saved = head_scores(base_scores=np.ones((3, 4)), reliability={"tau": 0.1})
    saved.save(tmp_path / "h.json")
    loaded = HeadScores.load(tmp_path / "h.json")
    np.testing.assert_allclose(loaded.scores, saved.scores, atol=1e-6)
    np.testing.assert_allclose(loaded.per_example, saved.per_example, atol=1e-6)
    np.testing.assert_allclose(loaded.base_scores, saved.base_scores)
    assert loaded.provenance == saved.provenance
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.json", "h.npz"]
    content = json.loads((tmp_path / "h.json").read_text())
    assert (content["schema"], content["num_layers"], content["num_heads"]) == ("sce.heads/1", 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "not a HeadScores file"),
        ('{"schema": "other/1"}', "schema 'other/1'"),
        ("[]", "not a HeadScores file"),
        ('{"schema": "sce.heads/1"}', "not a HeadScores file"),
    ],
)
def test_a_file_that_is_no_head_scores_is_refused(tmp_path, content, message):
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(InputError, match=message):
        HeadScores.load(tmp_path / "h.json")


def test_scores_of_another_shape_than_stated_are_refused(tmp_path):
    head_scores().save(tmp_path / "h.json")
    content = json.loads((tmp_path / "h.json").read_text())
    (tmp_path / "h.json").write_text(json.dumps({**content, "num_heads": 5}))
    with pytest.raises(InputError, match="shape"):
        HeadScores.load(tmp_path / "h.json")


def saved_reference(folder) -> Path:
    averaged = average(["a", "b"], [head_scores(0), head_scores(1)], None, tau=0.1, k=2)
    averaged.save(folder / "h.json")
    return folder / "h.json"


def test_a_fitting_reference_loads_without_a_word(tmp_path):
    reference, warnings = load_reference(saved_reference(tmp_path), FACTS)
    assert reference.num_examples == 5
    assert warnings == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scorer": "copy_needle"}, "scorer=copy, but the run has scorer=copy_needle"),
        ({"mode": "greedy"}, "mode=teacher_forced, but the run has mode=greedy"),
        ({"match": "surface"}, "match=exact"),
        ({"weights_sha256": "other"}, "heads of different models"),
        ({"shape": (3, 5)}, "heads of different models"),
        ({"train_sha256": "t0"}, "compared with itself"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(tmp_path, changes, message):
    file = saved_reference(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_reference(file, replace(FACTS, **changes), ["model=mine"])
    assert "reference=none" in str(error.value)
    if "train_sha256" not in changes:
        assert "make one with: python -m sce.train model=mine" in str(error.value)


def test_a_single_run_s_own_scores_are_no_reference_for_it(tmp_path):
    head_scores(0).save(tmp_path / "h.json")
    with pytest.raises(InputError, match="compared with itself"):
        load_reference(tmp_path / "h.json", replace(FACTS, train_sha256="t0"))


def test_a_missing_reference_prints_the_commands(tmp_path):
    with pytest.raises(InputError, match=r"no such file.*python -m sce\.headset action=average"):
        load_reference(tmp_path / "none.json", FACTS)


def test_the_commands_that_make_a_reference_compose_and_tune_on_real_data():
    from runs import configured
    from sce.commands import HeadsetConfig, ScoreConfig, TrainConfig

    typed = ["model=llama3_8b", "data.concept=low", "lora.r=4", "seed=3"]
    typed.append("data.train.path='a b.jsonl'")
    commands = [shlex.split(c) for c in reference_commands(FACTS, [*typed, "trainer.devices=2"])]
    assert [c[2] for c in commands] == [
        *("sce.train", "sce.score", "sce.train", "sce.score", "sce.score", "sce.headset")
    ]
    schemas = {"train": TrainConfig, "score": ScoreConfig, "headset": HeadsetConfig}
    for command in commands:
        name = command[2].removeprefix("sce.")
        config = configured(name, schemas[name], command[3:])
        if name == "train":
            assert config.data.cell("train") == ("real", "real")
            assert config.seed in (100, 101)
            assert (config.lora.r, config.trainer.devices) == (4, 2)
            assert config.data.train.path == "a b.jsonl"


def test_what_differs_is_one_warning(tmp_path):
    other = replace(
        FACTS, reference_sha256="x", prompt_sha256="y", context_tokens=99, dtype="bfloat16"
    )
    _, warnings = load_reference(saved_reference(tmp_path), replace(other, rope={"theta": 2e4}))
    assert len(warnings) == 1
    for word in ("data", "prompt", "length", "rope_theta", "dtype"):
        assert word in warnings[0]


def test_scores_of_one_or_of_no_tuned_model_carry_a_warning(tmp_path):
    for provenance in ({}, {"adapter": None, "adapter_sha256": None}):
        scores = head_scores(0)
        scores.provenance |= provenance
        scores.save(tmp_path / "h.json")
        _, warnings = load_reference(tmp_path / "h.json", FACTS)
        assert "two or more on real data are due" in warnings[0]


def test_the_greedy_counterpart_lies_beside(tmp_path):
    file = tmp_path / "copy-teacher_forced-exact.json"
    assert greedy_sibling(file) is None
    (tmp_path / "copy-greedy-exact.json").write_text("{}")
    assert greedy_sibling(file) == tmp_path / "copy-greedy-exact.json"
    assert greedy_sibling(tmp_path / "copy-greedy-exact.json") is None
    assert greedy_sibling(tmp_path / "mine.json") is None


def test_an_average_holds_members_base_and_what_the_seeds_agree_on():
    sets = [head_scores(0), head_scores(1)]
    averaged = average(["a", "b"], sets, head_scores(2), tau=0.5, k=3)
    np.testing.assert_allclose(averaged.scores, (sets[0].scores + sets[1].scores) / 2)
    np.testing.assert_allclose(averaged.per_example.mean(axis=0), averaged.scores)
    assert [m["adapter_sha256"] for m in averaged.provenance["members"]] == ["a0", "a1"]
    assert averaged.base_scores is not None
    assert 0 < averaged.reliability["seed_against_seed"]["cosine"] <= 1
    twin = head_scores(0)
    twin.provenance["adapter_sha256"] = "other"
    same = average(["a", "b"], [head_scores(0), twin], None, tau=0.5, k=3)
    assert same.reliability["seed_against_seed"]["recall"] == 1


@pytest.mark.parametrize("changes", [{"mode": "greedy"}, {"num_examples": 4}])
def test_sets_that_differ_are_not_averaged(changes):
    with pytest.raises(InputError, match="a and b cannot be averaged"):
        average(["a", "b"], [head_scores(0), head_scores(1, **changes)], None, tau=0.1, k=2)


def test_one_model_twice_or_an_untuned_one_is_no_average():
    untuned = head_scores(3)
    untuned.provenance["adapter_sha256"] = None
    for sets in ([head_scores(0)], [head_scores(0)] * 2, [head_scores(0), untuned]):
        with pytest.raises(InputError, match="at least two differently tuned"):
            average(["a", "b"][: len(sets)], sets, None, tau=0.1, k=2)


def test_rows_are_json_without_nan_and_a_torn_line_is_left_out(tmp_path):
    file = tmp_path / "records.jsonl"
    append_jsonl(file, {"step": 0, "recall": float("nan"), "n": np.int64(3)})
    append_jsonl(file, {"step": 5})
    append_jsonl(file, {"step": 10})
    drop_rows_after(file, 5)
    with file.open("a") as stream:
        stream.write('{"step": 1')
    assert read_jsonl(file) == [{"step": 0, "recall": None, "n": 3}, {"step": 5}]


def test_json_files_are_replaced_whole(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
