"""Every task through training and scoring, on a tiny model."""

import json

import pytest

from runs import run_score, run_train
from sce.records import read_jsonl

SMALL = {
    "musique": ["data.num_documents=5"],
    "summhay": ["data.num_documents=8"],
    "needle": ["data.num_documents=null", "data.context_tokens=500"],
}


@pytest.mark.parametrize("task", list(SMALL))
def test_a_task_is_trained_and_recorded(tiny_folder, tmp_path, task):
    run_dir = run_train(tiny_folder, f"data={task}", *SMALL[task], f"run_dir={tmp_path / 'run'}")
    rows = read_jsonl(run_dir / "records.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(row["task"] == task for row in rows)
    assert rows[0]["concept"] == ("real" if task == "needle" else "high")
    assert rows[-1]["num_examples"] == 6


def test_a_run_whose_scorer_keeps_no_example_says_so_and_writes_no_scores(tiny_folder, tmp_path):
    run_dir = run_train(
        tiny_folder,
        *("data=needle", *SMALL["needle"], "scorer=wu2024_code", "mode=greedy"),
        *("trainer.max_steps=2", f"run_dir={tmp_path / 'run'}"),
    )
    rows = read_jsonl(run_dir / "records.jsonl")
    assert [row["num_kept_examples"] for row in rows] == [0, 0]
    assert [row["num_heads"] for row in rows] == [None, None]
    assert not list(run_dir.glob("heads/*"))
    assert not list(run_dir.glob("figures/*"))
    log = (run_dir / "log.txt").read_text()
    assert "scorer=wu2024_code kept none of the 5 reference examples" in log
    (cosine,) = [text for text in log.splitlines() if "cosine with the reference" in text]
    assert cosine.split()[-1] == "0"


def test_citations_have_precision_and_recall(tiny_folder, tmp_path):
    run_dir = run_train(
        tiny_folder,
        "data=summhay",
        *SMALL["summhay"],
        "logger=csv",
        f"run_dir={tmp_path / 'run'}",
    )
    (file,) = run_dir.rglob("metrics.csv")
    header = file.read_text().splitlines()[0]
    assert "val/citation_precision" in header
    assert "val/citation_recall" in header
    for row in read_jsonl(run_dir / "records.jsonl"):
        for name in ("f1", "citation_precision", "citation_recall"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_a_mixture_is_named_in_the_records(tiny_folder, tmp_path):
    run_dir = run_train(
        tiny_folder,
        "data.mix=[{concept: real, weight: 1}, {concept: low, context: high, weight: 2}]",
        f"run_dir={tmp_path / 'run'}",
    )
    row = read_jsonl(run_dir / "records.jsonl")[0]
    assert row["mix"] == "0.333 real/real + 0.667 low/high"
    assert (row["concept"], row["context"]) == ("mix", "mix")
    assert row["limited"] is None


def test_the_relation_of_a_limited_set_is_in_the_records(tiny_folder, tmp_path):
    limited = ("data.concept=limited", "data.limited=who", f"run_dir={tmp_path / 'run'}")
    row = read_jsonl(run_train(tiny_folder, *limited, "val_every=4") / "records.jsonl")[-1]
    assert (row["concept"], row["limited"]) == ("limited", "who")


@pytest.mark.parametrize("task", list(SMALL))
def test_a_task_s_heads_are_scored(tiny_folder, tmp_path, task):
    out = tmp_path / "heads.json"
    run_score(tiny_folder, f"data={task}", *SMALL[task], f"out={out}")
    scores = json.loads(out.read_text())
    assert scores["num_examples"] == 5
