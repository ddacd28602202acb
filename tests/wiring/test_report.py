"""The table a run ends with, from rows of a record."""

import pytest

from sce.records import append_jsonl
from sce.report import final_table

ROW = {
    "run": "mine",
    "scorer": "copy",
    "mode": "teacher_forced",
    "tau": 0.1,
    "num_examples": 24,
    "num_reference_examples": 32,
    "num_kept_examples": 30,
    "recall_learned": None,
    "cosine": 0.9,
}


def rows(*pairs):
    return [
        {**ROW, "step": 4 * n, "recall": recall, "f1": f1, "f1_low": f1 - 0.1, "f1_high": f1 + 0.1}
        for n, (recall, f1) in enumerate(pairs)
    ]


def table(tmp_path, *pairs) -> str:
    for row in rows(*pairs):
        append_jsonl(tmp_path / "records.jsonl", row)
    return final_table(tmp_path)


def test_start_end_intervals_and_n_stand_in_the_table(tmp_path):
    text = table(tmp_path, (0.5, 0.2), (0.6, 0.4), (0.75, 0.5))
    assert "0.200 [0.100, 0.300]" in text
    assert "0.500 [0.400, 0.600]" in text
    assert "0.750" in text
    assert "[a, b]: 95% bootstrap interval" in text
    assert "over n = 3 checkpoints: Spearman 1.00" in text
    assert "python -m sce.score adapter=" in text


def typed(text: str) -> list[str]:
    """The commands that are offered."""
    return [each.split("python -m ")[1] for each in text.splitlines() if "python -m " in each]


@pytest.mark.parametrize(
    ("overrides", "training", "scoring"),
    [
        ([], "data.concept=symbolic data.context=symbolic", ""),
        (["run_dir=runs/a", "seed=3"], "data.concept=symbolic data.context=symbolic", ""),
        (["data=mdqa"], "data=mdqa data.concept=symbolic data.context=symbolic", "data=mdqa "),
        (
            ["model=llama3_8b", "data.train.path=my data.jsonl", "optimizer.lr=1e-4", "seed=3"],
            "model=llama3_8b 'data.train.path=my data.jsonl' optimizer.lr=1e-4 seed=4",
            "model=llama3_8b 'data.train.path=my data.jsonl' ",
        ),
        (
            ["scorer=query_focused", "mode=prefill", "scorer.k=5"],
            "scorer=query_focused mode=prefill scorer.k=5 data.concept=symbolic "
            "data.context=symbolic",
            "scorer=query_focused mode=prefill scorer.k=5 ",
        ),
        (
            ["hydra.searchpath=[file:///my/conf]", "model=mine"],
            "'hydra.searchpath=[file:///my/conf]' model=mine seed=4",
            "'hydra.searchpath=[file:///my/conf]' model=mine ",
        ),
        (["experiment=symbolic"], "experiment=symbolic seed=4", ""),
    ],
)
def test_what_to_type_next_keeps_the_model_and_the_data(tmp_path, overrides, training, scoring):
    append_jsonl(tmp_path / "records.jsonl", {**rows((0.5, 0.2))[0], "task": "mdqa", "seed": 3})
    train, score = typed(final_table(tmp_path, None, overrides))
    assert train == f"sce.train {training}"
    assert score.startswith(f"sce.score {scoring}adapter=")


def test_an_experiment_s_data_are_to_be_read_in_the_config(tmp_path):
    append_jsonl(tmp_path / "records.jsonl", {**rows((0.5, 0.2))[0], "task": "mdqa", "seed": 3})
    assert "config.yaml)" in final_table(tmp_path, None, ["experiment=extend_16k"])
    assert "config.yaml)" not in final_table(tmp_path, None, ["val_every=2"])


def line(text: str, label: str) -> list[str]:
    return next(row for row in text.splitlines() if label in row).split()


def test_n_is_that_of_the_kept_examples_at_both_steps_where_they_differ(tmp_path):
    text = table(tmp_path, (0.5, 0.2), (0.6, 0.4))
    assert line(text, "cosine with")[-1] == "30"
    assert line(text, "F1")[-1] == "24"
    row = {**rows((None, 0.5))[0], "cosine": None, "step": 8, "num_kept_examples": 0}
    append_jsonl(tmp_path / "records.jsonl", row)
    assert line(final_table(tmp_path), "cosine with")[-3:] == ["-", "30,", "0"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0.5, 0.2), (0.6, 0.4)], "below 3 checkpoints (n = 2)"),
        ([(0.5, 0.2)] * 3, "constant over the n = 3 checkpoints"),
        ([(None, 0.2)] * 4, "below 3 checkpoints (n = 0)"),
    ],
)
def test_no_correlation_is_claimed_where_there_is_none(tmp_path, pairs, message):
    assert message in table(tmp_path, *pairs)
