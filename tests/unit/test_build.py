"""Built data: the same bytes however it is made, mapped into memory, and never the wrong data."""

import json
from pathlib import Path

import numpy as np
import pytest

from plans import make_splits
from sce.data import build as build_module
from sce.data import table
from sce.data.build import build_missing, open_splits
from sce.data.encode import Encoder
from sce.data.plan import plan_splits
from sce.data.table import read_split
from sce.data_options import DataOptions
from sce.errors import InputError


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(table, "SHARD", 4)


def planned(tokenizer, **changes):
    values = {"num_train": 10, "num_val": 4, "num_reference": 4, "concept": "low", **changes}
    encoder = Encoder(tokenizer)
    return plan_splits(DataOptions(**values), encoder, 0), encoder


def content(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.rglob("*.arrow"))}


def test_the_bytes_do_not_depend_on_the_number_of_processes(tokenizer, tmp_path, small_shards):
    one = build_missing(*planned(tokenizer, num_workers=1), out=tmp_path / "one")
    two = build_missing(*planned(tokenizer, num_workers=8), out=tmp_path / "two")
    assert len(content(one["train"])) == 3
    assert content(tmp_path / "one") == content(tmp_path / "two")
    cards = [read_split(folders["train"]).card for folders in (one, two)]
    assert cards[0]["sha256"] == cards[1]["sha256"]


def test_what_is_read_is_what_was_made(tokenizer, tmp_path, small_shards):
    plan, encoder = planned(tokenizer)
    splits, _ = open_splits(build_missing(plan, encoder, out=tmp_path))
    made = make_splits(plan.options, encoder)
    for name, split in splits.items():
        assert len(split.encoded) == len(made[name].encoded)
        for read, expected in zip(split.encoded, made[name].encoded, strict=True):
            assert read.id == expected.id
            assert read.answers == expected.answers
            assert read.end_id == expected.end_id
            for field in ("prompt_ids", "target_ids", "evidence", "needles", "cited"):
                assert np.array_equal(getattr(read, field), getattr(expected, field))
                assert getattr(read, field).dtype == np.int32
        lengths = [len(example.prompt_ids) for example in made[name].encoded]
        assert split.encoded.lengths == lengths
        assert split.max_prompt_tokens == max(lengths)
    with pytest.raises(IndexError):
        splits["train"].encoded[10]


def test_hugging_face_datasets_reads_the_folder(tokenizer, tmp_path, small_shards):
    import datasets

    folders = build_missing(*planned(tokenizer), out=tmp_path)
    loaded = datasets.load_from_disk(str(folders["train"]))
    assert len(loaded) == 10
    assert loaded[0]["task"] == "mdqa"


def test_what_was_built_is_not_built_again_unless_something_changed(tokenizer, monkeypatch):
    plan, encoder = planned(tokenizer, num_train=7)
    first = build_missing(plan, encoder)
    monkeypatch.setattr(build_module, "_write_shards", pytest.fail)
    assert build_missing(plan, encoder) == first
    again, encoder = planned(tokenizer, num_train=7, num_workers=2)
    assert build_missing(again, encoder) == first
    monkeypatch.undo()
    other, encoder = planned(tokenizer, num_train=7, num_documents=2)
    assert not set(build_missing(other, encoder).values()) & set(first.values())


def test_evaluation_data_is_shared_by_runs_on_other_training_data(tokenizer, data_cache):
    one = build_missing(*planned(tokenizer, concept="low"))
    other = build_missing(*planned(tokenizer, concept="high"))
    assert one["val"] == other["val"]
    assert one["reference"] == other["reference"]
    assert one["train"] != other["train"]


def test_a_built_folder_serves_the_options_it_was_built_with_alone(tokenizer, tmp_path):
    plan, encoder = planned(tokenizer)
    build_missing(plan, encoder, out=tmp_path)
    again, _ = planned(tokenizer, built=str(tmp_path))
    assert build_missing(again, encoder)["train"] == tmp_path / "train"
    other, _ = planned(tokenizer, built=str(tmp_path), num_documents=2)
    with pytest.raises(InputError, match=r"built with data\.num_documents=3, but this run has 2"):
        build_missing(other, encoder)
    absent, _ = planned(tokenizer, built=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no built data set"):
        build_missing(absent, encoder)


def test_a_folder_that_lost_a_file_is_refused(tokenizer, tmp_path, small_shards):
    folders = build_missing(*planned(tokenizer), out=tmp_path)
    next(iter(folders["train"].glob("*.arrow"))).unlink()
    with pytest.raises(InputError, match="2 of 3 Arrow files"):
        read_split(folders["train"])
    (folders["val"] / "card.json").write_text("{")
    with pytest.raises(InputError, match="not a data card"):
        read_split(folders["val"])


def test_a_build_that_fails_leaves_nothing_behind(tokenizer, tmp_path):
    plan, encoder = planned(tokenizer, num_documents=None, context_tokens=60)
    with pytest.raises(InputError, match=r"over data\.context_tokens=60"):
        build_missing(plan, encoder, out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_splits_that_share_a_needle_are_found_without_their_text(tokenizer, tmp_path):
    plan, encoder = planned(tokenizer)
    folders = build_missing(plan, encoder, out=tmp_path)
    with pytest.raises(InputError, match=r"share .* with example"):
        open_splits({"train": folders["train"], "val": folders["train"]})
    _, overlap = open_splits(folders)
    assert overlap.questions == {"train": 10, "val": 4, "reference": 4}
    assert overlap.documents["train"] == 11  # ten hosts, and padding that is always the same
    assert overlap.needles["train"] == 10


def test_the_card_counts_what_the_data_holds(tokenizer, tmp_path):
    plan, encoder = planned(tokenizer, mix=[], concept="limited", limited="who", context="real")
    card = read_split(build_missing(plan, encoder, out=tmp_path)["train"]).card
    assert card["cell"] == ["limited", "real"]
    assert card["num_examples"] == 10
    assert card["selection"]["questions"] == 240
    assert 10 <= card["selection"]["who_questions"] < 240
    assert sum(card["depth"]["histogram"]) == 10
    assert sum(card["token_histogram"]["counts"]) == 10
    assert card["duplicates"]["examples"] == 0
    assert json.loads(json.dumps(card)) == card


@pytest.mark.data
def test_own_paragraphs_that_hold_a_hop_s_answer_are_counted(tokenizer, tmp_path, nq_file):
    options = {"task": "musique", "concept": "real", "context": "real", "num_documents": None}
    plan, encoder = planned(tokenizer, **options, num_train=None, num_val=None, num_reference=None)
    assert plan.recipes["train"].example(0).meta.get("own_leaks", 0) == 0  # the sample has none
    options = DataOptions(**options, num_val=None, num_reference=None)
    options.train.path = str(nq_file.parent / "musique_ans_dev.jsonl.gz")
    splits = make_splits(options, encoder)
    leaky = [e for s in splits.values() for e in s.examples if e.meta.get("own_leaks")]
    assert 60 < len(leaky) <= 81  # some lost those paragraphs, which are other splits' gold ones
