"""Files of head scores, references that fit or do not, and rows of a record."""

import gzip
import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sce.commands import HeadsetConfig
from sce.errors import InputError
from sce.headset import average, headset
from sce.records import (
    TAUS,
    HeadScores,
    RunFacts,
    append_jsonl,
    drop_rows_after,
    provenance,
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


@pytest.mark.parametrize("name", ["h.json.gz", "h.npz", "h"])
def test_head_scores_are_not_written_under_a_name_that_means_something_else(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}: .* end the name in \.json"):
        head_scores().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_where_scores_come_from_names_the_model_s_revision():
    facts = replace(FACTS, model="someone/model", revision="abc")
    assert provenance(facts)["revision"] == "abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "not JSON"),
        ("", "the file is empty"),
        ("[]", "not a HeadScores file: no JSON object"),
        ('{"schema": "other/1"}', "schema 'other/1', not 'sce.heads/1'"),
        ('{"0-0": [0.5]}', "schema None, not 'sce.heads/1'; for other tools' files see"),
        ('{"schema": "sce.heads/1"}', "not a HeadScores file: scorer, mode, match, num_layers"),
        ('{"schema": "sce.heads/1", "schema": "sce.heads/1"}', "'schema' stands in it twice"),
    ],
)
def test_a_file_that_is_no_head_scores_is_refused(tmp_path, content, message):
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(InputError) as error:
        HeadScores.load(tmp_path / "h.json")
    assert str(error.value).startswith(f"{tmp_path / 'h.json'}: ")
    assert message in str(error.value)


def edited(tmp_path, edit: Callable[[dict], object], **changes) -> Path:
    """A saved file whose JSON was edited by hand."""
    head_scores(**changes).save(tmp_path / "h.json")
    content = json.loads((tmp_path / "h.json").read_text())
    edit(content)
    (tmp_path / "h.json").write_text(json.dumps(content))
    return tmp_path / "h.json"


def set_score(value) -> Callable[[dict], object]:
    def edit(content):
        content["scores"][2][1] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(num_heads=5), "layer 0 has 4 heads, but its shape is 3 layers x 5"),
        (lambda c: c.update(num_layers=4), "scores of 3 layers, but its shape is 4 layers x 4"),
        (lambda c: c["scores"][2].pop(), "layer 2 has 3 heads"),
        (lambda c: c.update(scores=0.5), "scores of no list of layers"),
        (lambda c: c.update(scores=[1, 2, 3]), "layer 0 has no list of heads"),
        (set_score(None), "head 2-1 has the score null"),
        (set_score(float("nan")), "head 2-1 has the score nan"),
        (set_score(float("-inf")), "head 2-1 has the score -inf"),
        (set_score("0.5"), "head 2-1 has the score '0.5'"),
        (set_score([0.5]), "head 2-1 has the score [0.5]"),
        (set_score(0.9), "head 2-1 has the score 0.9, but"),
        (lambda c: c["base_scores"][0].pop(), "base_scores: layer 0 has 3 heads"),
        (lambda c: c["base_scores"][1].__setitem__(3, None), "base_scores: head 1-3 has"),
        (lambda c: c.update(num_examples=0), "num_examples is 0, not a whole number >= 1"),
        (lambda c: c.update(num_examples=-5), "num_examples is -5"),
        (lambda c: c.update(num_examples=5.0), "num_examples is 5.0"),
        (lambda c: c.update(num_examples=True), "num_examples is True"),
        (lambda c: c.update(num_examples=4), "h.npz has 5 examples, but num_examples is 4"),
        (lambda c: c.update(num_layers="3"), "num_layers is '3'"),
        (lambda c: c.update(mode="forced"), "mode is 'forced', not one of teacher_forced, greedy"),
        (lambda c: c.update(match="fuzzy"), "match is 'fuzzy', not one of exact, surface"),
        (lambda c: c.update(scorer=3), "scorer is 3, not a name"),
        (lambda c: c.update(provenance=[1]), "provenance is [1], not a JSON object"),
        (lambda c: c.update(provenance=0), "provenance is 0, not a JSON object"),
        (lambda c: c.update(reliability="high"), "reliability is 'high', not a JSON object"),
        (
            lambda c: c.update(reliability={"tau": "0.1"}),
            "reliability: tau is '0.1', not a finite number",
        ),
        (lambda c: c.update(per_example=3), "per_example is 3, not a file name"),
        (lambda c: c.update(scorer="copy\n"), "scorer is 'copy\\n', not a name"),
        (lambda c: c.pop("match"), "match missing"),
    ],
)
def test_a_hand_edited_file_is_refused_and_the_head_is_named(tmp_path, edit, message):
    file = edited(tmp_path, edit, base_scores=np.ones((3, 4)))
    with pytest.raises(InputError) as error:
        HeadScores.load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


LINE, WHOLE, NUMBERS = "a line of text", "a whole number", "an object of finite numbers"


@pytest.mark.parametrize(
    ("where", "key", "value", "words"),
    [
        ("provenance", "weights_sha256", 12, LINE),
        ("provenance", "data_sha256", ["x"], LINE),
        ("provenance", "prompt_sha256", {"x": 1}, LINE),
        ("provenance", "adapter_sha256", True, LINE),
        ("provenance", "file_sha256", ["x"], LINE),
        ("provenance", "model", "two\nlines", LINE),
        ("provenance", "dtype", "\ud800", LINE),
        ("provenance", "context_tokens", "100", WHOLE),
        ("provenance", "num_offered", 5.0, WHOLE),
        ("provenance", "seed", False, WHOLE),
        ("provenance", "rope", "1e4", NUMBERS),
        ("provenance", "rope", {"theta": [1e4]}, NUMBERS),
        ("provenance", "rope", {"theta": float("nan")}, NUMBERS),
        ("provenance", "rope", {"theta": 10**400}, NUMBERS),
        ("provenance", "versions", {"torch": 2}, "an object of lines of text"),
        ("provenance", "imported_from", 3, "a line of text or a list of them"),
        ("provenance", "imported_from", [["a.json"]], "a line of text or a list of them"),
        ("provenance", "members", 0, "a list"),
        ("provenance", "members", {"seed": 1}, "a list"),
        ("provenance.adapter", "train_sha256", 3, LINE),
        ("provenance.adapter", "concept", ["real"], LINE),
        ("provenance.members[1]", "train_sha256", {"x": 1}, LINE),
        ("provenance.members[1]", "adapter_sha256", [], LINE),
        ("provenance.members[1]", "file_sha256", ["x"], LINE),
        ("reliability", "split_half", {"recall": "high"}, NUMBERS),
        ("reliability", "seed_against_seed", [0.5], NUMBERS),
    ],
)
def test_provenance_of_the_wrong_type_is_refused_and_the_key_is_named(
    tmp_path, where, key, value, words
):
    def edit(content):
        content["provenance"]["members"] = [{"seed": None}, {}]
        found = {
            "provenance": content["provenance"],
            "provenance.adapter": content["provenance"]["adapter"],
            "provenance.members[1]": content["provenance"]["members"][1],
            "reliability": content.setdefault("reliability", {}),
        }
        found[where][key] = value

    file = edited(tmp_path, edit)
    with pytest.raises(InputError) as error:
        HeadScores.load(file)
    assert str(error.value).startswith(f"{file}: {where}: {key} is ")
    assert str(error.value).endswith(f", not {words}")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("where", ["adapter", "members[1]"])
def test_an_adapter_or_a_member_that_is_no_object_is_refused(tmp_path, where):
    def edit(content):
        content["provenance"] |= {"adapter": "x"} if where == "adapter" else {"members": [{}, "x"]}

    with pytest.raises(InputError, match="is 'x', not a JSON object") as error:
        HeadScores.load(edited(tmp_path, edit))
    assert f"provenance.{where} is" in str(error.value)


KEYS = (
    *("model", "revision", "dtype", "weights_sha256", "prompt_sha256", "data_sha256", "split"),
    *("context_tokens", "seed", "step", "run", "rope", "versions", "adapter_sha256", "adapter"),
    *("num_offered", "members", "imported_from", "file_sha256", "reliability", "per_example"),
    *("adapter.train_sha256", "members.train_sha256", "members.file_sha256", "members.seed"),
)
# The last is half a surrogate pair, which no terminal takes.
TEXTS = st.text(max_size=4) | st.sampled_from(["w", "d", "", "a\nb", "\ud800"])
NAMES = st.sampled_from("theta was torch tau recall seed train_sha256 split_half".split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def with_value(content: dict, key: str, value: object) -> dict:
    """The JSON of a file in which one key was edited."""
    origin, (part, _, inner) = content["provenance"], key.partition(".")
    if key in ("reliability", "per_example"):
        return {**content, key: value}
    within = {"adapter": {inner: value}, "members": [{}, {inner: value}]}
    return {**content, "provenance": {**origin, part: within[part] if inner else value}}


def attempt(act: Callable[[], object]) -> None:
    """Do it or be refused in one line; what else is raised gets through."""
    try:
        act()
    except InputError as error:
        assert str(error).isprintable()


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(KEYS), VALUES)
def test_whatever_is_written_into_a_key_a_file_loads_or_is_refused(key, value):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head_scores(1, per_example=None).save(folder / "other.json")
        head_scores(0, per_example=None).save(folder / "h.json")
        content = with_value(json.loads((folder / "h.json").read_text()), key, value)
        (folder / "h.json").write_text(json.dumps(content))
        files, out = [str(folder / "h.json"), str(folder / "other.json")], str(folder / "out.json")
        for options in (
            {"files": files[:1]},
            {"files": files, "action": "compare"},
            {"files": files, "action": "average", "out": out},
        ):
            config = HeadsetConfig(**options, k=2)
            attempt(lambda config=config: headset(config))
        attempt(lambda: load_reference(folder / "h.json", FACTS))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_file_is_called_so(tmp_path, share):
    head_scores().save(tmp_path / "h.json")
    text = (tmp_path / "h.json").read_text()
    (tmp_path / "h.json").write_text(text[: int(share * len(text))])
    with pytest.raises(InputError, match=r"h\.json: truncated: its JSON breaks off in line \d+"):
        HeadScores.load(tmp_path / "h.json")


def partly_nan(rows):
    rows[2, 1, 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:, :2], r"h.npz has shape \(5, 2, 4\), not \(examples, \*\(3, 4\)\)"),
        (lambda rows: rows[0], r"h.npz has shape \(3, 4\)"),
        (lambda rows: rows[:3], "h.npz has 3 examples, but num_examples is 5"),
        (lambda rows: rows + 2e-6, "head 0-0 has the score .* on average over the examples in"),
        (partly_nan, "h.npz: head 1-3 has a score that is no finite number"),
        (lambda rows: rows * np.nan, "h.npz: no example was kept"),
        (lambda rows: rows.astype(str), "h.npz holds no per-example scores"),
    ],
)
def test_per_example_scores_of_another_set_are_refused(tmp_path, change, message):
    saved = head_scores()
    saved.save(tmp_path / "h.json")
    np.savez_compressed(tmp_path / "h.npz", scores=change(saved.per_example))
    with pytest.raises(InputError, match=message):
        HeadScores.load(tmp_path / "h.json")


def test_an_npz_that_is_none_is_refused(tmp_path):
    head_scores().save(tmp_path / "h.json")
    whole = (tmp_path / "h.npz").read_bytes()
    for data in (b"", b"no zip", whole[: len(whole) // 2]):
        (tmp_path / "h.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"h\.npz (holds no|is no whole)"):
            HeadScores.load(tmp_path / "h.json")
    np.savez(tmp_path / "h.npz", other=np.ones(3))
    with pytest.raises(InputError, match="holds no per-example scores"):
        HeadScores.load(tmp_path / "h.json")


def test_rows_that_the_scorer_did_not_keep_are_left_out_of_the_mean(tmp_path):
    rows = np.random.default_rng(0).random((5, 3, 4))
    rows[[1, 3]] = np.nan
    kept = np.nanmean(rows, axis=0)
    for count in (5, 3):
        head_scores(per_example=rows, scores=kept, num_examples=count).save(tmp_path / "h.json")
        loaded = HeadScores.load(tmp_path / "h.json")
        assert np.isnan(loaded.per_example).all(axis=(1, 2)).tolist() == [0, 1, 0, 1, 0]
        np.testing.assert_allclose(loaded.scores, kept, atol=1e-9)
    head_scores(per_example=rows, scores=kept * 3 / 5).save(tmp_path / "h.json")
    with pytest.raises(InputError, match="on average over the examples"):
        HeadScores.load(tmp_path / "h.json")


def test_a_json_without_its_npz_and_one_that_is_gzipped_load(tmp_path):
    head_scores().save(tmp_path / "h.json")
    (tmp_path / "h.npz").unlink()
    assert HeadScores.load(tmp_path / "h.json").per_example is None
    (tmp_path / "h.json.gz").write_bytes(gzip.compress((tmp_path / "h.json").read_bytes()))
    np.testing.assert_allclose(
        HeadScores.load(tmp_path / "h.json.gz").scores, HeadScores.load(tmp_path / "h.json").scores
    )


def test_only_an_imported_set_may_have_no_examples(tmp_path):
    imported = {"imported_from": "qr.json", "file_sha256": "0"}
    head_scores(num_examples=0, per_example=None, provenance=imported).save(tmp_path / "h.json")
    assert HeadScores.load(tmp_path / "h.json").num_examples == 0


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


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (["data.mix=[{concept:low}]"], "given.jsonl"),
        (["data.concept=limited", "data.context=real", "data.limited=who"], "given.jsonl"),
        (["data.concept=low_entity", "data.entity_base=high"], "given.jsonl"),
        (["data.concept=high", "data.writer=llm", "data.written=w.jsonl"], "given.jsonl"),
        (["+data.built=folder", "data.concept=low"], "given.jsonl"),
        (["data.label=null"], "given.jsonl"),
        (["data.label=mine"], "REAL_QUESTIONS"),
        (["++data.label=mine", "data.val.path=v.jsonl"], "REAL_QUESTIONS"),
    ],
)
def test_a_reference_is_tuned_on_real_questions_and_scored_on_the_run_s(typed, path):
    from runs import configured
    from sce.commands import ScoreConfig, TrainConfig

    typed = ["data.train.path=given.jsonl", *typed]
    train, score = (shlex.split(c)[3:] for c in reference_commands(FACTS, typed)[:2])
    config = configured("train", TrainConfig, train)
    assert config.data.training == ("real", "real")
    assert config.data.train.path == path
    own = configured("train", TrainConfig, ["reference=none", *typed]).data
    assert configured("score", ScoreConfig, score).data == own


def test_the_command_that_averages_names_tau_only_where_it_is_not_the_scorer_s_own():
    for scorer, tau in TAUS.items():
        average = reference_commands(replace(FACTS, scorer=scorer, tau=tau), [])[-1]
        assert "tau=" not in average
        other = reference_commands(replace(FACTS, scorer=scorer, tau=tau / 4), [])[-1]
        assert f"tau={tau / 4:g} " in other


def test_thresholds_are_those_of_the_scorers_and_of_their_configs():
    from sce.config import CONF
    from sce.heads import SCORERS

    assert {name: scorer.SPEC.tau for name, scorer in SCORERS.items()} | {"duo": 0.5} == TAUS
    for name in SCORERS:
        text = (CONF / "scorer" / f"{name}.yaml").read_text()
        assert f"\ntau: {TAUS[name]}" in text


def test_what_differs_is_one_warning(tmp_path):
    other = replace(
        FACTS, reference_sha256="x", prompt_sha256="y", context_tokens=99, dtype="bfloat16"
    )
    _, warnings = load_reference(saved_reference(tmp_path), replace(other, rope={"theta": 2e4}))
    assert len(warnings) == 1
    for word in ("data", "prompt", "length", "rope_theta", "dtype"):
        assert word in warnings[0]


def test_scores_of_one_or_of_no_tuned_model_carry_a_warning(tmp_path):
    for origin in ({}, {"adapter": None, "adapter_sha256": None}):
        scores = head_scores(0)
        scores.provenance |= origin
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


def untuned(**changes):
    base = head_scores(2, **changes)
    base.provenance["adapter_sha256"] = None
    return base


def test_the_base_of_an_average_is_of_no_tuned_model():
    with pytest.raises(InputError, match="this one is of a tuned model"):
        average(["a", "b"], [head_scores(0), head_scores(1)], head_scores(2), tau=0.5, k=3)


def test_an_average_holds_members_base_and_what_the_seeds_agree_on():
    sets = [head_scores(0), head_scores(1)]
    averaged = average(["a", "b"], sets, untuned(), tau=0.5, k=3)
    np.testing.assert_allclose(averaged.scores, (sets[0].scores + sets[1].scores) / 2)
    np.testing.assert_allclose(averaged.per_example.mean(axis=0), averaged.scores)
    assert [m["adapter_sha256"] for m in averaged.provenance["members"]] == ["a0", "a1"]
    assert averaged.base_scores is not None
    assert 0 < averaged.reliability["seed_against_seed"]["cosine"] <= 1
    twin = head_scores(0)
    twin.provenance["adapter_sha256"] = "other"
    same = average(["a", "b"], [head_scores(0), twin], None, tau=0.5, k=3)
    assert same.reliability["seed_against_seed"]["recall"] == 1


def test_an_average_says_how_far_it_can_be_relied_on(tmp_path):
    """Two halves of examples that are all alike agree fully; so do seeds with one score map."""
    rows = np.tile(np.random.default_rng(0).random((3, 4)), (6, 1, 1))
    sets = [head_scores(i, per_example=rows, scores=rows[0], num_examples=6) for i in (0, 1)]
    base = untuned(num_examples=6, per_example=rows / 2, scores=rows[0] / 2)
    averaged = average(["a", "b"], sets, base, tau=0.5, k=3)
    averaged.save(tmp_path / "h.json")
    agreed = HeadScores.load(tmp_path / "h.json").reliability
    assert (agreed["tau"], agreed["k"], agreed["num_pairs"]) == (0.5, 3, 2)
    for measures in (agreed["seed_against_seed"], agreed["split_half"]):
        for name in ("recall", "precision", "jaccard", "recall_at_k", "cosine", "spearman"):
            assert measures[name] == pytest.approx(1), name
        assert measures["cosine_learned"] == pytest.approx(1)
    assert (agreed["split_half"]["n"], agreed["split_half"]["num_splits"]) == (6, 20)


def test_two_halves_that_contradict_each_other_are_not_relied_on():
    """Half of the examples know one head, half another: their means share few heads."""
    rows = np.zeros((4, 3, 4))
    rows[0, 0, 0] = rows[1, 1, 1] = rows[2, 2, 2] = rows[3, 2, 3] = 1
    sets = [head_scores(i, per_example=rows, scores=rows.mean(axis=0)) for i in (0, 1)]
    agreed = average(["a", "b"], sets, None, tau=0.1, k=2).reliability
    assert agreed["seed_against_seed"]["recall"] == 1
    assert agreed["split_half"]["recall"] == 0
    assert agreed["split_half"]["recall_learned"] is None


def test_without_scores_of_the_examples_there_are_no_halves():
    sets = [head_scores(i, per_example=None) for i in (0, 1)]
    assert average(["a", "b"], sets, None, tau=0.5, k=3).reliability["split_half"] is None


def test_examples_that_not_all_models_kept_leave_the_average_of_the_sets(tmp_path):
    sets = [head_scores(0), head_scores(1)]
    sets[1].per_example[2] = np.nan
    sets[1].scores, sets[1].num_examples = np.nanmean(sets[1].per_example, axis=0), 4
    averaged = average(["a", "b"], sets, None, tau=0.5, k=3)
    assert averaged.per_example is None
    assert averaged.num_examples == 4
    np.testing.assert_allclose(averaged.scores, (sets[0].scores + sets[1].scores) / 2)
    averaged.save(tmp_path / "h.json")
    HeadScores.load(tmp_path / "h.json")
    sets[0].per_example[2] = np.nan
    both = average(["a", "b"], sets, None, tau=0.5, k=3)
    assert np.isnan(both.per_example).all(axis=(1, 2)).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("changes", [{"mode": "greedy"}, {"num_examples": 4, "per_example": None}])
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
