"""Documents left out instead of heads, and where heads look: what both commands leave."""

import csv
import json
from collections import namedtuple

import numpy as np
import pytest

from runs import configured, run_score, run_train
from sce.analysis.charts.interventions import baselines as chart_of
from sce.analysis.interventions import baselines as baselines_in
from sce.data.encode import Encoder
from sce.data.example import Document, Example, Span
from sce.errors import InputError
from sce.intervene import intervene
from sce.intervene_options import InterveneConfig
from sce.interventions.baselines import VIEWS, seen, views_of
from sce.records import HeadScores

TINY = [
    "model.dtype=float32",
    "data.num_train=4",
    "data.num_val=5",
    "data.num_reference=4",
    "data.num_documents=3",
    "max_new_tokens=3",
    "batch.eval=3",
    "logger=none",
]
TEXT = "It was opened in 1889. It is 121 metres high."
EXAMPLE = Example(
    id="x",
    task="mdqa",
    documents=(Document("a", "Other", "Nothing here."), Document("b", "Tower", TEXT)),
    question="how high is it",
    answers=("121 metres",),
    evidence=(Span("b", 23, len(TEXT)),),
)

Drawn = namedtuple("Drawn", ("task", "baselines"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("view", "there", "gone"),
    [
        ("full", ("Nothing here", "1889", "121 metres high"), ()),
        ("gold_only", ("1889", "121 metres high"), ("Nothing here",)),
        ("no_evidence", ("Nothing here",), ("1889", "121 metres high", "Tower")),
        ("no_documents", (), ("Nothing here", "1889", "121 metres high", "Document [1]")),
    ],
)
def test_a_view_shows_what_its_name_says_and_asks_the_same(tokenizer, view, there, gone):
    encoder = Encoder(tokenizer)
    encoded = seen(encoder, EXAMPLE, view)
    text = tokenizer.decode(encoded.prompt_ids)
    assert all(part in text for part in (*there, "Question: how high is it"))
    assert not any(part in text for part in gone)
    assert text.endswith("Answer:")
    assert tokenizer.decode(encoded.target_ids) == " 121 metres"
    assert encoded.answers == ("121 metres",)
    assert (len(encoded.evidence) > 0) == (view in ("full", "gold_only"))


def test_what_is_to_be_cited_is_numbered_anew_among_the_gold_alone(tokenizer):
    cited = Example(
        id="x",
        task="summhay",
        documents=EXAMPLE.documents,
        question="It is 121 metres high.",
        answers=("b",),
        evidence=EXAMPLE.evidence,
    )
    encoder = Encoder(tokenizer)
    assert seen(encoder, cited, "full").answers == ("2",)
    assert seen(encoder, cited, "gold_only").answers == ("1",)
    assert views_of("summhay") == ("full", "gold_only")
    assert views_of("musique") == VIEWS


def baselines(model, *overrides):
    given = [*TINY, "method=baselines", f"model.name_or_path={model}", "out=b", *overrides]
    return intervene(configured("intervene", InterveneConfig, given))


@pytest.fixture(scope="module")
def run(peaky_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        return run_train(peaky_folder, "data.num_documents=3", "data.num_val=5").absolute()


def test_a_row_a_model_and_view_with_n_and_intervals(peaky_folder, run):
    out = baselines(peaky_folder, f"adapter={run}/adapter")
    assert sorted(file.name for file in out.iterdir()) == ["results.json", "table.csv"]
    result = json.loads((out / "results.json").read_text())
    assert result["schema"] == "sce.baselines/1"
    named = [(row["model"], row["view"]) for row in result["rows"]]
    assert named == [(model, view) for model in ("untuned", "tuned") for view in VIEWS]
    for row in result["rows"]:
        assert row["n"] == 5
        assert row["f1_low"] <= row["f1"] <= row["f1_high"]
        assert row["answer_nll_low"] <= row["answer_nll"] <= row["answer_nll_high"]
    with (out / "table.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 8
    # What is written is what sce.analysis draws, every model in a colour of its own.
    drawn = Drawn("mdqa", baselines_in(out / "results.json", []))
    figure = chart_of(drawn)
    colours = figure.panels[0].spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert colours == list(dict.fromkeys(model for model, _ in named))


def test_all_documents_give_what_the_run_s_own_validation_gave(peaky_folder, run):
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    more = ["data.num_train=12", "max_new_tokens=4", "batch.eval=4", f"adapter={run}/adapter"]
    result = json.loads((baselines(peaky_folder, *more) / "results.json").read_text())
    full = {row["model"]: row for row in result["rows"] if row["view"] == "full"}
    for model, row in (("untuned", rows[0]), ("tuned", rows[-1])):
        assert full[model]["f1"] == pytest.approx(row["f1"])
        assert full[model]["answer_nll"] == pytest.approx(row["answer_nll"], abs=1e-5)


def test_weights_tuned_themselves_leave_the_untuned_model_what_it_was(peaky_folder, tmp_path):
    given = ("lora=none", "optimizer.lr=0.01", "data.num_documents=3", "data.num_val=5")
    run = run_train(peaky_folder, *given, f"run_dir={tmp_path / 'run'}")
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    more = ["data.num_train=12", "max_new_tokens=4", "batch.eval=4", f"adapter={run}/adapter"]
    result = json.loads((baselines(peaky_folder, *more) / "results.json").read_text())
    full = {row["model"]: row for row in result["rows"] if row["view"] == "full"}
    for model, row in (("untuned", rows[0]), ("tuned", rows[-1])):
        assert full[model]["answer_nll"] == pytest.approx(row["answer_nll"], abs=1e-5)
    assert rows[0]["answer_nll"] != pytest.approx(rows[-1]["answer_nll"], abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["heads.list=[0-0]"], "touches no head; leave out heads="),
        (["heads.k=[3]"], "leave out heads="),
        (["ablation=mean"], "leave out ablation="),
        (["source=x"], "leave out source="),
        (["sets=[all]"], "leave out sets="),
        (["adapter=nowhere"], "nowhere"),
    ],
)
def test_what_belongs_to_the_other_methods_is_refused(peaky_folder, overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        baselines(peaky_folder, *overrides)
    assert not (tmp_path / "b").exists()


# -- where heads look ------------------------------------------------------------------------------


def test_a_score_can_be_worked_out_from_where_its_head_looks(peaky_folder, tmp_path):
    more = ["data.num_documents=2", "data.num_reference=4", "data.num_train=12"]
    run_score(peaky_folder, "out=h.json", "looks=l.jsonl", *more)
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    scores = HeadScores.load(tmp_path / "h.json")
    assert len(rows) == scores.num_examples == 4
    assert scores.scores.any()
    for row, own in zip(rows, scores.per_example, strict=True):
        tokens, evidence = row["tokens"], set(row["evidence"])
        assert (row["schema"], row["task"], row["model"]) == ("sce.looks/1", "mdqa", "untuned")
        for layer, heads in enumerate(row["looked_at"]):
            for head, places in enumerate(heads):
                copied = [
                    place in evidence and tokens[place] == token
                    for place, token in zip(places, row["answer"], strict=True)
                ]
                assert np.mean(copied) == pytest.approx(own[layer, head])
                assert row["scores"][layer][head] == pytest.approx(own[layer, head], abs=1e-6)


def test_looks_that_would_overwrite_another_file_are_refused(peaky_folder):
    with pytest.raises(InputError, match=r"looks=h.npz is one of the files of out=h.json"):
        run_score(peaky_folder, "out=h.json", "looks=h.npz")
    with pytest.raises(InputError, match=r"looks=a is one of the files of audit=a"):
        run_score(peaky_folder, "out=h.json", "audit=a", "looks=a")
