"""python -m sce.dataset: what it writes, shows and refuses."""

import gzip
import json

import pytest

from runs import configured
from sce.commands import DatasetConfig
from sce.data.sources import read_questions
from sce.dataset import dataset
from sce.errors import InputError

SMALL = ["data.num_train=6", "data.num_val=4", "data.num_reference=4"]


@pytest.fixture
def run(tiny_folder):
    def call(*overrides: str) -> None:
        given = [f"model.name_or_path={tiny_folder}", *SMALL, *overrides]
        dataset(configured("dataset", DatasetConfig, given))

    return call


def test_a_built_folder_has_its_card_as_text_and_picture(run, tmp_path, caplog):
    out = tmp_path / "built"
    with caplog.at_level("INFO", logger="sce"):
        run("action=build", f"out={out}")
    assert sorted(p.name for p in out.iterdir()) == [
        "card.md",
        "card.png",
        "reference",
        "train",
        "val",
    ]
    text = (out / "card.md").read_text()
    assert "AUC of 0." in text
    assert "| examples | 6 | 4 | 4 |" in text
    assert f"data.built={out}" in caplog.text


def test_training_on_a_built_folder_is_training_on_its_options(tiny_folder, run, tmp_path):
    from runs import run_train
    from sce.records import read_jsonl

    out = tmp_path / "built"
    shared = ["data.num_train=12", "data.num_val=6", "data.num_reference=5", "data.num_documents=2"]
    run("action=build", f"out={out}", *shared)
    here = run_train(tiny_folder, f"data.built={out}", f"run_dir={tmp_path / 'a'}")
    there = run_train(tiny_folder, f"run_dir={tmp_path / 'b'}")
    rows = [read_jsonl(folder / "records.jsonl") for folder in (here, there)]
    assert [row["train_sha256"] for row in rows[0]] == [row["train_sha256"] for row in rows[1]]
    assert [row["answer_nll"] for row in rows[0]] == [row["answer_nll"] for row in rows[1]]


@pytest.mark.parametrize("name", ["one.jsonl", "one.jsonl.gz"])
def test_example_jsonl_can_be_trained_on_again(run, tmp_path, name):
    file = tmp_path / name
    run("action=build", f"out={file}", "data=musique", "data.concept=low", "data.context=high")
    opener = gzip.open if name.endswith("gz") else open
    with opener(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 6
    assert [example.to_json() for example in read_questions(str(file))] == rows


def test_an_example_is_shown_with_its_evidence_marked(run, tmp_path, capsys):
    page = tmp_path / "example.html"
    run("action=show", "index=2", f"html={page}", "data=summhay", "data.num_documents=6")
    shown = capsys.readouterr().out
    assert "Which documents state this?" in shown
    assert "evidence 1" in shown
    html = page.read_text()
    assert "background-color: #ffe27a" in html
    with pytest.raises(InputError, match=r"index=6: data\.train has 6 examples"):
        run("action=show", "index=6")


def test_the_grid_shows_every_cell(run, tmp_path, capsys):
    run("action=grid", f"html={tmp_path / 'grid.svg'}", "index=1")
    shown = capsys.readouterr().out
    for concept in ("real", "limited", "high", "low", "low_template", "low_entity", "symbolic"):
        assert concept in shown
    assert (tmp_path / "grid.svg").read_text().startswith("<svg")


def test_one_s_own_questions_are_checked_and_bad_rows_counted(run, tmp_path, caplog):
    file = tmp_path / "mine.jsonl"
    rows = [
        {
            "question": f"how high is tower {n}",
            "answers": [f"{n * 7 + 100} metres"],
            "ctxs": [
                {
                    "title": f"Tower {n}",
                    "text": f"Tower {n} is old. It is {n * 7 + 100} metres high.",
                    "isgold": True,
                }
            ],
        }
        for n in range(40)
    ]
    rows[5]["answers"] = ["no such thing"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["action=check", f"data.train.path={file}", "data.num_train=null"]
    with pytest.raises(InputError, match=r"mine\.jsonl:6: none of the answers"):
        run(*given)
    with caplog.at_level("INFO", logger="sce"):
        run(*given, "data.on_bad_row=skip")
    assert "1 rows of" in caplog.text
    assert "mine.jsonl:6" in caplog.text
    assert "all in place" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["action=grid", "split=val"], "split=val: action=grid does not use it"),
        (["action=check", "index=3"], "index=3: action=check does not use it"),
        (["action=build", "out=x", "html=h.html"], r"html=h\.html: action=build does not use it"),
        (["action=show", "out=x"], "out=x: action=show does not use it, but build does"),
        (["action=build", "out=x", "split=val"], r"split=val: a folder gets every split"),
        (["action=build", "out={file}/x"], "nothing can be written in the folder"),
        (["action=show", "html={file}/x.html"], "nothing can be written in the folder"),
        (["action=show", "html={folder}"], "is a folder; name a file in it"),
    ],
)
def test_what_would_do_nothing_or_could_not_be_written_is_refused(run, tmp_path, given, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        run(*(each.format(file=tmp_path / "file", folder=tmp_path) for each in given))


def test_a_folder_that_could_not_be_built_is_not_in_the_way(run, tmp_path):
    out = tmp_path / "built"
    with pytest.raises(InputError, match="tokens"):
        run("action=build", f"out={out}", "data.context_tokens=20")
    assert not out.exists()


def test_cells_of_the_grid_are_what_they_say_whatever_is_asked_of_training(run, capsys):
    run("action=grid")
    plain = capsys.readouterr().out
    run("action=grid", "data.train.concept=low", "data.train.context=low")
    assert capsys.readouterr().out == plain


def test_nothing_is_written_over(run, tmp_path):
    with pytest.raises(InputError, match="exists"):
        run("action=build", f"out={tmp_path}")
    with pytest.raises(InputError, match="needs out"):
        run("action=build")
