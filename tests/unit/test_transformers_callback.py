"""Retrieval heads in runs of transformers' own Trainer, on a tiny model: rows, logs, resuming."""

import logging
import os
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

import sce
from callbacks import RetrievalHeadsCallback, transformers_retrieval_heads
from conftest import ROOT
from ranks import run_ranks
from sce.data.sources import read_questions
from sce.errors import InputError
from sce.model.build import add_lora
from sce.options import LoraOptions
from sce.records import HeadScores, read_jsonl
from sce.stats import compare

TAU, K = 0.05, 3
# Of the scores of a random model those that change with every step.
QUESTION = {"scorer": "query_focused", "mode": "prefill", "batch_size": 2}
EXAMPLES = read_questions(str(ROOT / "sce" / "data" / "sample" / "reference.jsonl"))[:20:4]


def small_model(folder, adapter: bool):
    model = AutoModelForCausalLM.from_pretrained(folder)
    if not adapter:
        return model
    torch.manual_seed(0)
    return add_lora(model, LoraOptions(r=2, dropout=0.2))


def data() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(2, 800, (12,), generator=generator) for _ in range(32)]
    return [{"input_ids": row, "labels": row} for row in rows]


def arguments(folder, **changes) -> TrainingArguments:
    values = {
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.02,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=str(folder), **{**values, **changes})


def trainer_of(model, tokenizer, args, callbacks=(), kind=Trainer):
    return kind(
        model=model,
        args=args,
        train_dataset=data(),
        eval_dataset=data()[:4],
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


@pytest.fixture(autouse=True)
def fast_and_quiet(monkeypatch):
    few = partial(transformers_retrieval_heads.measures, num_resamples=20)
    monkeypatch.setattr(transformers_retrieval_heads, "measures", few)
    monkeypatch.setattr(logging.getLogger("transformers"), "level", logging.ERROR)


@pytest.fixture(scope="module")
def reference(peaky_folder, tokenizer) -> HeadScores:
    """A set of which the untuned model has some heads."""
    scores = sce.score_heads(small_model(peaky_folder, False), tokenizer, EXAMPLES, **QUESTION)
    return replace(scores, scores=np.abs(scores.scores), per_example=None)


@pytest.fixture(params=[False, True], ids=["full", "lora"])
def adapter(request) -> bool:
    return request.param


def rows_of(folder) -> list[dict]:
    return read_jsonl(folder / "sce" / "records.jsonl")


def test_step_0_every_so_many_steps_and_the_last_are_scored_compared_and_logged(
    peaky_folder, tokenizer, tmp_path, reference, adapter
):
    trainer = trainer_of(small_model(peaky_folder, adapter), tokenizer, arguments(tmp_path))
    callback = RetrievalHeadsCallback(
        EXAMPLES, reference, tau=TAU, k=K, every=2, trainer=trainer, **QUESTION
    )
    trainer.add_callback(callback)
    trainer.train()
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    sets = [HeadScores.load(tmp_path / "sce/heads" / f"step-{r['step']:06d}.json") for r in rows]
    assert not np.array_equal(sets[0].scores, sets[-1].scores)
    for row, found in zip(rows, sets, strict=True):
        expected = compare(found.scores, reference.scores, sets[0].scores, tau=TAU, k=K)
        for name in ("recall", "recall_base", "recall_learned", "cosine", "recall_at_k"):
            assert row[name] == pytest.approx(getattr(expected, name), abs=1e-6), name
        assert row["recall_low"] <= row["recall_high"]
        assert row["num_examples"] == found.num_examples == len(EXAMPLES)
        assert found.provenance["step"] == row["step"]
        assert (found.provenance["adapter_sha256"] is None) is not adapter
        logged = [h for h in trainer.state.log_history if h["step"] == row["step"]]
        assert [h["heads/recall"] for h in logged if "heads/recall" in h] == [row["recall"]]
    assert 0 < rows[0]["recall"] == rows[0]["recall_base"] < 1
    assert rows[0]["cosine_learned"] is None
    last = sce.score_heads(trainer.model, tokenizer, EXAMPLES, **QUESTION)
    np.testing.assert_allclose(last.per_example, sets[-1].per_example)


class Integration(TrainerCallback):
    """What W&B and TensorBoard are to the Trainer."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append((state.global_step, dict(logs)))


class LikeTrl(Trainer):
    """Adds running means to what it logs, and empties them, as TRL's and axolotl's trainers do."""

    means = 0

    def log(self, logs, start_time=None):
        self.means += 1
        super().log({**logs, "mean": self.means}, start_time)


def test_integrations_see_the_figures_and_the_trainer_s_own_logs_are_untouched(
    peaky_folder, tokenizer, tmp_path
):
    seen = []
    for scored in (False, True):
        integration = Integration()
        args = arguments(tmp_path / str(scored))
        model = small_model(peaky_folder, True)
        trainer = trainer_of(model, tokenizer, args, [integration], kind=LikeTrl)
        if scored:
            trainer.add_callback(RetrievalHeadsCallback(EXAMPLES[:2], every=2, trainer=trainer))
        trainer.train()
        seen.append(integration.seen)
    own = [[(s, logs) for s, logs in each if "heads/num_heads" not in logs] for each in seen]
    assert [s for s, logs in own[0] if "loss" in logs] == [2, 4]
    for (step, plain), (other_step, scored) in zip(*own, strict=True):
        assert (step, plain.get("mean")) == (other_step, scored.get("mean"))
        # The loss is the same too: scoring changes neither weights nor dropout masks.
        assert plain.get("loss") == scored.get("loss")
    heads = [(s, logs) for s, logs in seen[1] if "heads/num_heads" in logs]
    assert [s for s, _ in heads] == [0, 2, 4, 5]
    assert all("mean" not in logs for _, logs in heads)


def test_without_the_trainer_figures_are_in_its_history_and_in_wandb(
    peaky_folder, tokenizer, tmp_path, monkeypatch
):
    logged = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(log=logged.append))
    args = arguments(tmp_path, max_steps=2)
    callback = RetrievalHeadsCallback(EXAMPLES[:2], every=5)
    trainer = trainer_of(small_model(peaky_folder, False), tokenizer, args, [callback])
    args.report_to = ["wandb"]
    trainer.train()
    history = [h for h in trainer.state.log_history if "heads/num_heads" in h]
    assert [h["step"] for h in history] == [0, 2]
    assert [charts["train/global_step"] for charts in logged] == [0, 2]
    assert logged[1]["train/heads/num_heads"] == history[1]["heads/num_heads"]
    assert [row["num_heads"] for row in rows_of(tmp_path)] == [
        h["heads/num_heads"] for h in history
    ]


class Failing(TrainerCallback):
    """A crash in the fifth step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_a_resumed_run_records_what_an_uninterrupted_one_does(
    peaky_folder, tokenizer, tmp_path, reference, adapter
):
    def run(folder, callbacks=(), resume=None):
        args = arguments(folder, max_steps=6, save_strategy="steps", save_steps=3)
        scoring = RetrievalHeadsCallback(EXAMPLES[:3], reference, tau=TAU, k=K, every=2, **QUESTION)
        model = small_model(peaky_folder, adapter)
        trainer = trainer_of(model, tokenizer, args, [*callbacks, scoring])
        trainer.train(resume_from_checkpoint=resume)

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", [Failing()])
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [0, 2, 4]
    run(tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-3"))
    whole, cut = (
        [{k: v for k, v in row.items() if k not in ("seconds", "time")} for row in rows_of(folder)]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    )
    assert [row["step"] for row in whole] == [0, 2, 4, 6]
    assert whole == cut
    assert cut[-1]["recall_base"] == cut[0]["recall"] > 0
    assert len({row["cosine"] for row in cut}) == 4


def test_a_run_goes_on_with_the_examples_it_began_with_alone(peaky_folder, tokenizer, tmp_path):
    def run(examples, resume=None):
        args = arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
        callback = RetrievalHeadsCallback(examples, every=9, **QUESTION)
        trainer = trainer_of(small_model(peaky_folder, True), tokenizer, args, [callback])
        trainer.train(resume_from_checkpoint=resume)

    run(EXAMPLES[:1])
    with pytest.raises(InputError, match=r"step-000000\.json: scored with another data, so it is"):
        run(EXAMPLES[1:2], resume=str(tmp_path / "checkpoint-1"))


def test_a_second_run_into_the_same_folder_is_refused(peaky_folder, tokenizer, tmp_path):
    def run(**changes):
        callback = RetrievalHeadsCallback(EXAMPLES[:1], every=9, **changes)
        args = arguments(tmp_path, max_steps=1)
        trainer_of(small_model(peaky_folder, False), tokenizer, args, [callback]).train()

    run()
    before = (tmp_path / "sce" / "records.jsonl").read_text()
    with pytest.raises(InputError, match="another run's; delete it, or give out="):
        run()
    assert (tmp_path / "sce" / "records.jsonl").read_text() == before
    run(out=tmp_path / "other")
    assert len(read_jsonl(tmp_path / "other" / "records.jsonl")) == 2


def test_after_evaluations_alone_where_that_is_asked_for(peaky_folder, tokenizer, tmp_path):
    args = arguments(tmp_path, max_steps=5, eval_strategy="steps", eval_steps=2)
    callback = RetrievalHeadsCallback(EXAMPLES[:1], every="evaluate")
    trainer = trainer_of(small_model(peaky_folder, False), tokenizer, args, [callback])
    trainer.train()
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 2, 4, 5]
    trainer.evaluate()
    assert len(rows_of(tmp_path)) == 4


def hooks(tokenizer, model, folder, **state):
    """Arguments of a hook, as the Trainer gives them."""
    values = {"global_step": 0, "epoch": 0, "is_world_process_zero": True, "log_history": []}
    given = SimpleNamespace(**{**values, "best_model_checkpoint": None, **state})
    control = SimpleNamespace(should_log=False, should_training_stop=False)
    return (arguments(folder), given, control), {"model": model, "processing_class": tokenizer}


def test_other_ranks_score_and_write_nothing(peaky_folder, tokenizer, tmp_path):
    model = small_model(peaky_folder, False)
    positional, named = hooks(tokenizer, model, tmp_path, is_world_process_zero=False)
    RetrievalHeadsCallback(EXAMPLES[:1]).on_train_begin(*positional, **named)
    assert positional[1].log_history[0]["heads/num_examples"] == 1
    assert not (tmp_path / "sce").exists()


def test_weights_of_another_step_are_not_scored_as_the_last(peaky_folder, tokenizer, tmp_path):
    model = small_model(peaky_folder, False)
    callback = RetrievalHeadsCallback(EXAMPLES[:1])
    (args, state, control), named = hooks(tokenizer, model, tmp_path)
    callback.on_train_begin(args, state, control, **named)
    state.global_step, state.best_model_checkpoint = 7, "checkpoint-5"
    args.load_best_model_at_end = True
    callback.on_train_end(args, state, control, **named)
    assert [row["step"] for row in rows_of(tmp_path)] == [0]
    args.load_best_model_at_end = False
    callback.on_train_end(args, state, control, **named)
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 7]


def test_what_is_unlike_the_reference_s_is_in_every_row(peaky_folder, tokenizer, tmp_path):
    model = small_model(peaky_folder, False)
    own = sce.score_heads(model, tokenizer, EXAMPLES[:1])
    for number, (changes, expected) in enumerate(
        [
            ({}, 1),
            # What theta was before it was changed is no difference in how scores were taken.
            ({"rope": {**own.provenance["rope"], "was": 1.0}}, 1),
            ({"weights_sha256": "w"}, 1),
            ({"data_sha256": "x", "dtype": "bfloat16"}, 2),
        ]
    ):
        reference = HeadScores(
            *("copy", "teacher_forced", "exact", own.scores, 1),
            provenance={**own.provenance, **changes},
        )
        folder = tmp_path / str(number)
        positional, named = hooks(tokenizer, model, folder)
        RetrievalHeadsCallback(EXAMPLES[:1], reference, k=K).on_train_begin(*positional, **named)
        assert len(rows_of(folder)[0]["warnings"]) == expected
    assert "other data, dtype (bfloat16 and float32);" in rows_of(folder)[0]["warnings"][0]


@pytest.mark.parametrize(
    ("scored", "tau", "expected"),
    [
        ({}, None, 0.1),
        ({"scorer": "copy_needle", "mode": "greedy"}, None, 0.02),
        ({"scorer": "query_focused", "mode": "prefill"}, None, 0.2),
        ({"scorer": "ov_write"}, None, 1.0),
        ({"scorer": "ov_write"}, 0.0, 0.0),
    ],
)
def test_tau_is_the_scorer_s_own_unless_it_is_given(scored, tau, expected):
    assert RetrievalHeadsCallback(EXAMPLES[:1], tau=tau, **scored).tau == expected


def test_what_is_wrong_is_one_clear_line(peaky_folder, tokenizer, tmp_path, reference):
    file = tmp_path / "reference.json"
    reference.save(file)
    cases = {
        'every=0: give a number of steps, or "evaluate"': {"every": 0},
        "every=sometimes": {"every": "sometimes"},
        "k must be >= 1, got 0": {"k": 0},
        "tau must be a number >= 0, got nan": {"tau": float("nan")},
        "tau must be a number >= 0, got inf": {"tau": float("inf")},
        "tau must be a number >= 0, got -0.1": {"tau": -0.1},
        "scorer=copying: choose from copy": {"scorer": "copying"},
        "scorer=query_focused is .*mode=prefill": {"scorer": "query_focused"},
        "absent.json": {"reference": tmp_path / "absent.json"},
        "reference: scorer=query_focused, but the run has scorer=copy": {"reference": str(file)},
    }
    for message, changes in cases.items():
        with pytest.raises(InputError, match=message):
            RetrievalHeadsCallback(EXAMPLES[:1], **changes)
    small = HeadScores("copy", "teacher_forced", "exact", np.zeros((2, 2)), 1)
    positional, named = hooks(tokenizer, small_model(peaky_folder, False), tmp_path)
    with pytest.raises(InputError, match="2 layers of 2 heads, but the model has 3 of 4"):
        RetrievalHeadsCallback(EXAMPLES[:1], small).on_train_begin(*positional, **named)
    with pytest.raises(InputError, match="k=20, but the model has 12 heads"):
        own = replace(small, scores=np.zeros((3, 4)))
        RetrievalHeadsCallback(EXAMPLES[:1], own).on_train_begin(*positional, **named)
    with pytest.raises(InputError, match="no tokenizer; give it processing_class"):
        named["processing_class"] = None
        RetrievalHeadsCallback(EXAMPLES[:1]).on_train_begin(*positional, **named)


def test_two_ranks_record_once_what_one_does(peaky_folder, tokenizer, tmp_path):
    def train(folder, batch):
        args = arguments(folder, max_steps=1, per_device_train_batch_size=batch)
        callback = RetrievalHeadsCallback(EXAMPLES[:2], every=1, **QUESTION)
        trainer_of(small_model(peaky_folder, False), tokenizer, args, [callback]).train()

    def one_rank():
        os.environ["RANK"] = os.environ["LOCAL_RANK"]
        train(tmp_path / "two", 2)

    run_ranks(one_rank)
    train(tmp_path / "one", 4)
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [0, 1]
    for step in range(2):
        sets = [tmp_path / name / f"sce/heads/step-{step:06d}.json" for name in ("one", "two")]
        first, second = (HeadScores.load(file).scores for file in sets)
        np.testing.assert_allclose(first, second, atol=1e-3)
