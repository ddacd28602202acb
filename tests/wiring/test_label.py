"""Synthetic data of one's own: trained on as it is, called by its label, judged on real data."""

import json

import pytest

from runs import run_train
from sce.analysis.study import analyse
from sce.data.questions import real_questions, sample_questions
from sce.data_options import SPLITS, DataOptions, SplitOptions
from sce.errors import InputError
from sce.records import read_jsonl


def write_questions(file, town, count):
    """Invented questions, each on a document of its own."""
    rows = [
        {
            "question": f"Who keeps the gate of {town}{i}?",
            "answers": [f"Keeper{town}{i}"],
            "ctxs": [
                {
                    "title": f"{town}{i}",
                    "text": f"{town}{i} has a gate. Keeper{town}{i} keeps it.",
                    "isgold": True,
                }
            ],
        }
        for i in range(count)
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    mine = write_questions(folder / "mine.jsonl", "Aro", 30)
    return mine, write_questions(folder / "real.jsonl", "Belm", 40)


def questions(examples):
    return {example.question for example in examples}


def test_without_other_files_validation_and_reference_are_the_sample(files):
    options = DataOptions(label="mine", train=SplitOptions(path=str(files[0])))
    found, origins = real_questions(options, {}, SPLITS)
    assert len(found["train"]) == 30
    assert origins == {"train": str(files[0]), "val": "the sample", "reference": "the sample"}
    for name in ("val", "reference"):
        assert questions(found[name]) == questions(sample_questions("mdqa", name))


def test_one_real_file_is_dealt_to_validation_and_reference(files):
    mine, real = (str(file) for file in files)
    options = DataOptions(
        label="mine",
        train=SplitOptions(path=mine),
        val=SplitOptions(path=real),
        shares=[1, 3, 1],
    )
    found, origins = real_questions(options, {}, SPLITS)
    assert len(found["train"]) == 30
    assert [len(found[name]) for name in ("val", "reference")] == pytest.approx([30, 10], abs=1)
    assert origins["reference"] == f"a share of {real}"
    dealt = [questions(found[name]) for name in ("val", "reference")]
    assert dealt[0] | dealt[1] == {f"Who keeps the gate of Belm{i}?" for i in range(40)}
    assert not dealt[0] & dealt[1]


def test_records_and_comparisons_know_it_by_its_label(files, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine, real = files
    own = [f"data.train.path={mine}", "data.label=mine", f"data.val.path={real}"]
    run_dir = run_train(tiny_folder, *own)
    assert run_dir.name == "mdqa-mine-mine-seed0"
    rows = read_jsonl(run_dir / "records.jsonl")
    assert {(row["concept"], row["context"]) for row in rows} == {("mine", "mine")}
    assert "(mine, mine) from" in (run_dir / "log.txt").read_text()
    other = run_train(tiny_folder, f"data.train.path={real}", "run_dir=real")
    found = {run.name: run for run in analyse([run_dir, other]).groups[0].tasks[0].runs}
    assert (found[run_dir.name].kind, found[run_dir.name].setting) == ("synthetic", "mine/mine")
    assert found["real"].kind == "real"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": SplitOptions()}, "data.label=mine names data of your own: give data.train.path"),
        ({"concept": "low"}, "taken as it is; leave data.concept"),
        ({"label": "symbolic"}, "no concept's name"),
        ({"label": "my data"}, "letters, digits"),
        ({"shares": [1, 2, 1]}, "data.shares deals one file of real questions"),
    ],
)
def test_a_label_that_says_nothing_or_too_much_is_refused(changes, said):
    given = {"label": "mine", "train": SplitOptions(path="mine.jsonl")} | changes
    with pytest.raises(InputError, match=said):
        DataOptions(**given)
