"""The whole path on a tiny model: what a run leaves behind, and what bad input gets."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from runs import TINY, run_score, run_train
from sce.errors import InputError
from sce.headset import average
from sce.records import HeadScores, read_jsonl
from test_data import from_nq_like, make, write_jsonl


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


MORE = "data.num_reference=40"
FEW_HEADS = "scorer.k=3"  # of 12


@pytest.fixture(scope="module")
def finished(peaky_folder, tmp_path_factory):
    """A run, and a reference made of two others, as `make reference` does it."""
    import os

    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        names = []
        for seed in (7, 8):
            run_dir = run_train(
                peaky_folder, f"seed={seed}", "data.concept=real", "optimizer.lr=0.05", MORE
            )
            run_score(peaky_folder, f"adapter={run_dir}/adapter", f"out=scores-{seed}/", MORE)
            names.append(f"scores-{seed}/copy-teacher_forced-exact.json")
        run_score(peaky_folder, "out=untuned/", MORE)
        sets = [HeadScores.load(folder / name) for name in names]
        base = HeadScores.load(folder / "untuned" / "copy-teacher_forced-exact.json")
        averaged = average(names, sets, base, tau=0.1, k=3)
        averaged.save(folder / "reference.json")
        run_dir = run_train(
            peaky_folder,
            "reference.path=reference.json",
            "scorer.tau=0.001",
            FEW_HEADS,
            "optimizer.lr=0.05",
            MORE,
            "model.rope_theta=20000",
            "logger=csv",
        )
    finally:
        os.chdir(before)
    return run_dir


def test_a_run_folder_holds_what_was_promised(finished):
    names = {path.name for path in finished.iterdir()}
    expected = {"config.yaml", "records.jsonl", "heads", "curves", "predictions", "figures"}
    assert expected | {"adapter", "checkpoints", "log.txt", "csv", "logged.json"} == names
    kinds = {"heads": ("json", "npz"), "curves": ("json",), "predictions": ("jsonl",)}
    for folder, suffixes in kinds.items():
        files = sorted(path.name for path in (finished / folder).iterdir())
        assert files == [f"step-{step:06d}.{kind}" for step in (0, 2, 4) for kind in suffixes]
    assert not any("=" in str(path.name) for path in finished.rglob("*"))
    assert "recall" in (finished / "log.txt").read_text()


def test_scores_of_a_run_say_which_tuned_model_they_are_of(finished):
    first, last = (HeadScores.load(finished / f"heads/step-00000{n}.json") for n in (0, 4))
    assert "adapter" not in first.provenance
    row = read_jsonl(finished / "records.jsonl")[-1]
    assert last.provenance["adapter"]["train_sha256"] == row["train_sha256"]
    assert last.provenance["adapter"]["step"] == 4


def test_a_row_a_validation_with_every_field_of_the_contract(finished):
    rows = read_jsonl(finished / "records.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    fields = (
        "run study seed step target_tokens task concept context mix num_train train_sha256 "
        "eval_sha256 scorer mode match tau k recall recall_null recall_null_layer recall_base "
        "recall_learned precision jaccard recall_at_k cosine cosine_base cosine_learned spearman "
        "num_heads num_reference_heads greedy_recall greedy_cosine f1 exact_match answer_nll "
        "f1_low f1_high num_examples context_tokens seconds time exact_match_low exact_match_high "
        "greedy_recall_low greedy_recall_high greedy_cosine_low greedy_cosine_high "
        "answer_nll_low answer_nll_high"
    )
    for row in rows:
        assert set(fields.split()) <= row.keys()
        assert row["num_examples"] == 6
        assert row["answer_nll_low"] < row["answer_nll"] < row["answer_nll_high"]
    assert rows[0]["num_reference_heads"] > 0
    assert rows[0]["recall"] == rows[0]["recall_base"]
    assert rows[0]["cosine_learned"] is None  # nothing is learned at step 0
    assert rows[0]["target_tokens"] == 0 < rows[1]["target_tokens"] < rows[2]["target_tokens"]
    assert rows[2]["answer_nll"] != rows[0]["answer_nll"]


NOT_THE_RUNS = "not the examples that the run scored its heads on"


def test_scoring_a_run_s_adapter_on_other_examples_is_said(finished, peaky_folder, caplog):
    caplog.set_level("INFO", "sce")
    run_score(peaky_folder, f"adapter={finished}/adapter", "out=other.json")
    assert NOT_THE_RUNS in caplog.text
    assert "examples (real, real) from" in caplog.text


def test_recorded_scores_are_those_of_the_exported_adapter(finished, peaky_folder, caplog):
    written = HeadScores.load(finished / "heads" / "step-000004.json")
    caplog.set_level("INFO", "sce")
    (file,) = run_score(peaky_folder, f"adapter={finished}/adapter", "out=again.json", MORE)
    assert NOT_THE_RUNS not in caplog.text
    again = HeadScores.load(file)
    np.testing.assert_allclose(written.scores, again.scores, atol=1e-6)
    assert again.provenance["rope"]["theta"] == 20000
    assert again.provenance["attention"] == "sdpa"
    assert again.provenance["data_sha256"] == written.provenance["data_sha256"]
    assert again.provenance["adapter_sha256"]
    np.testing.assert_allclose(written.per_example, again.per_example, atol=1e-6)


def test_the_adapter_loads_with_peft_alone_and_carries_the_rope_change(finished, peaky_folder):
    base = AutoModelForCausalLM.from_pretrained(peaky_folder)
    model = PeftModel.from_pretrained(base, finished / "adapter")
    assert sum("lora_B" in name and bool(p.any()) for name, p in model.named_parameters()) == 12
    note = json.loads((finished / "adapter" / "sce.json").read_text())
    assert note["rope"] == {"theta": 20000.0, "was": 10000.0}
    assert note["step"] == 4


def test_predictions_hold_what_the_row_of_their_step_is_the_mean_of(finished):
    for row in read_jsonl(finished / "records.jsonl"):
        answers = read_jsonl(finished / "predictions" / f"step-{row['step']:06d}.jsonl")
        assert len(answers) == row["num_examples"] == 6
        for name in ("f1", "exact_match", "substring_exact_match"):
            assert np.mean([each[name] for each in answers]) == pytest.approx(row[name])
        nll, tokens = (sum(each[name] for each in answers) for name in ("nll", "num_labels"))
        assert nll / tokens == pytest.approx(row["answer_nll"])


def test_curves_have_one_row_a_step_on_the_optimiser_s_steps(finished):
    import csv

    with (finished / "csv" / "version_0" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    by_key = {}
    for row in rows:
        for key, value in row.items():
            if value and key != "step":
                by_key.setdefault(key, []).append(int(row["step"]))
    assert by_key["train/loss"] == [1, 2, 3, 4]
    assert by_key["val/f1"] == by_key["heads/recall"] == [0, 2, 4]
    measures = ("f1", "exact_match", "substring_exact_match", "answer_nll")
    bounds = [f"val/{name}_{end}" for name in measures for end in ("low", "high")]
    assert all(by_key[name] == [0, 2, 4] for name in (*bounds, "val/num_examples"))
    for row in rows:
        if row["val/f1"]:
            assert float(row["val/f1_low"]) <= float(row["val/f1"]) <= float(row["val/f1_high"])
            assert float(row["val/num_examples"]) == 6
    assert by_key["heads/recall_null"] == by_key["correlation/n"] == [0, 2, 4]
    assert by_key["perf/tokens_per_s_per_device"] == [2, 4]


def test_maps_are_drawn(finished):
    for step in (0, 2, 4):
        file = finished / "figures" / f"heads-{step:06d}.png"
        assert file.read_bytes().startswith(b"\x89PNG")


def test_checkpoints_hold_the_trainable_parts_alone(finished):
    checkpoint = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all("lora_" in name for name in checkpoint["state_dict"])


def test_a_base_that_has_the_reference_s_heads_recalls_all_and_learned_none(peaky_folder):
    shared = ("scorer.tau=0", "data.num_reference=40")
    run_score(peaky_folder, "out=untuned.json", *shared)
    run_dir = run_train(peaky_folder, "reference.path=untuned.json", FEW_HEADS, *shared)
    first = read_jsonl(run_dir / "records.jsonl")[0]
    assert first["num_reference_heads"] > 0
    assert first["recall"] == first["recall_base"] == 1
    assert first["recall_learned"] is None
    assert first["cosine"] == pytest.approx(1)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(peaky_folder):
    rows = []
    for number, seed in enumerate((0, 0, 1)):
        run_dir = run_train(peaky_folder, f"seed={seed}", f"run_dir=run-{number}")
        rows.append(read_jsonl(run_dir / "records.jsonl")[-1])
    assert rows[0]["answer_nll"] == rows[1]["answer_nll"] != rows[2]["answer_nll"]


def parameters(run_dir):
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]


def correlations(run_dir):
    import csv

    last = {}
    for file in sorted((run_dir / "csv").glob("version_*/metrics.csv")):
        with file.open() as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            last |= {k: v for k, v in row.items() if v and k.startswith(("correlation", "heads"))}
    return last


@pytest.mark.parametrize("stop", [3, 4], ids=["between validations", "at a validation"])
def test_a_resumed_run_equals_an_uninterrupted_one(finished, peaky_folder, monkeypatch, stop):
    """Mid-epoch, with dropout, with a reference: weights, moments, rows and callback state."""
    reference = finished.parents[1] / "reference.json"
    options = ("lora.dropout=0.1", "save_every=1", "optimizer.lr=0.02", MORE, "logger=csv")
    options += (f"reference.path={reference}", "scorer.tau=0.001", "model.rope_theta=20000")
    options += ("trainer.max_steps=6", FEW_HEADS)
    whole = run_train(peaky_folder, *options, "run_dir=whole")
    from sce.module import SceModule

    step = SceModule.optimizer_step

    def interrupted(self, *args, **kwargs):
        if self.global_step == stop:
            raise KeyboardInterrupt
        step(self, *args, **kwargs)

    monkeypatch.setattr(SceModule, "optimizer_step", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_train(peaky_folder, *options, "run_dir=parted")
    monkeypatch.setattr(SceModule, "optimizer_step", step)
    parted = run_train(peaky_folder, *options, "run_dir=parted", "resume=true")
    weights, moments = parameters(whole)
    other_weights, other_moments = parameters(parted)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    for key, state in moments.items():
        assert all(torch.equal(state[n], other_moments[key][n]) for n in ("exp_avg", "exp_avg_sq"))
    times = ("seconds", "time", "run")
    rows = [
        [
            {k: v for k, v in row.items() if k not in times}
            for row in read_jsonl(r / "records.jsonl")
        ]
        for r in (whole, parted)
    ]
    assert rows[0] == rows[1]
    assert correlations(whole) == correlations(parted)
    assert float(correlations(whole)["correlation/n"]) == 4


def test_resuming_a_finished_run_changes_nothing_and_another_recipe_is_refused(
    tiny_folder, tmp_path
):
    run_dir = run_train(tiny_folder, "run_dir=mine")
    before = (run_dir / "records.jsonl").read_text()
    run_train(tiny_folder, "run_dir=mine", "resume=true")
    assert (run_dir / "records.jsonl").read_text() == before
    with pytest.raises(InputError, match="repeat the options it was started with"):
        run_train(tiny_folder, "run_dir=mine", "resume=true", "data.concept=symbolic")


def test_validations_keep_to_optimiser_steps_when_epochs_do_not_divide(tiny_folder):
    # 11 examples, 2 x 2 a step: two steps an epoch, three examples left over.
    run_dir = run_train(tiny_folder, "data.num_train=11", "trainer.max_steps=7", "val_every=3")
    assert [row["step"] for row in read_jsonl(run_dir / "records.jsonl")] == [0, 3, 6, 7]


def test_the_log_says_where_each_split_comes_from(tiny_folder, tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [from_nq_like(make(n)) for n in range(60)])
    run_dir = run_train(tiny_folder, f"data.train.path={path}", "trainer.max_steps=1")
    log = (run_dir / "log.txt").read_text()
    assert f"examples (real, real) from {path}" in log
    assert f"examples (real, real) from a share of {path}" in log
    run_dir = run_train(tiny_folder, "data.concept=low", "trainer.max_steps=1")
    log = (run_dir / "log.txt").read_text()
    assert "examples (low, low) from invented facts" in log
    assert "examples (real, real) from the sample" in log


def test_two_runs_in_one_process_have_a_folder_each(tiny_folder):
    folders = [run_train(tiny_folder, "trainer.max_steps=1", f"seed={seed}") for seed in (0, 1)]
    assert [folder.name for folder in folders] == ["mdqa-high-high-seed0", "mdqa-high-high-seed1"]


def test_a_model_whose_heads_cannot_be_read_leaves_no_folder(save_model, tmp_path):
    from transformers import BloomConfig

    folder = save_model(BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=800))
    with pytest.raises(InputError, match="attention"):
        run_train(folder, "run_dir=mine")
    assert not (tmp_path / "mine").exists()


def test_a_hub_model_is_downloaded_before_it_is_identified(tiny_folder, tmp_path, monkeypatch):
    """A hub stand-in: config and tokenizer come one by one, weights only by a snapshot."""
    from sce.model import source as sources
    from sce.options import ModelOptions

    find, calls = sources.find, []

    def snapshot(repo, **options):
        calls.append((repo, options))
        return str(tiny_folder)

    monkeypatch.setattr(sources, "snapshot_download", snapshot)
    source = find(ModelOptions(name_or_path="someone/model", revision="v1"))
    assert source.sha256 == find(ModelOptions(name_or_path=str(tiny_folder))).sha256
    assert [(repo, options["revision"]) for repo, options in calls] == [("someone/model", "v1")]


def losses(run_dir):
    import csv

    with (run_dir / "csv" / "version_0" / "metrics.csv").open() as stream:
        return [float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]]


def test_accumulation_changes_nothing_whatever_the_lengths_of_the_answers(tiny_folder):
    shared = ("logger=csv", "optimizer.lr=0.01", "data.concept=real", "data.num_train=16")
    runs = []
    for number, sizes in enumerate((("4", "1"), ("1", "4"), ("2", "2"))):
        run_dir = run_train(
            tiny_folder,
            *shared,
            f"batch.train={sizes[0]}",
            f"trainer.accumulate_grad_batches={sizes[1]}",
            f"run_dir=run-{number}",
        )
        runs.append((losses(run_dir), parameters(run_dir)[0]))
    for run_losses, weights in runs[1:]:
        np.testing.assert_allclose(run_losses, runs[0][0], atol=2e-6)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, runs[0][1][name], atol=2e-5, rtol=1e-4)


def test_the_loss_is_the_mean_over_target_tokens(tiny_folder):
    """Of one step's examples, worked out with the stock model and its own cross-entropy."""
    from runs import configured
    from sce.assemble import assemble
    from sce.commands import TrainConfig
    from sce.data.loader import train_loader

    run_dir = run_train(tiny_folder, "logger=csv", "trainer.max_steps=1", "val_every=1")
    config = configured("train", TrainConfig, [*TINY, f"model.name_or_path={tiny_folder}"])
    parts = assemble(config, ["train"], on_gpu=False)
    loader = iter(train_loader(parts.splits["train"].encoded, batch_size=2, seed=0, accumulate=2))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    total, count = 0.0, 0
    for example in [e for batch in (next(loader), next(loader)) for e in batch.examples]:
        ids = torch.tensor([*example.prompt_ids, *example.target_ids, example.end_id])[None]
        labels = ids.clone()
        labels[:, : len(example.prompt_ids)] = -100
        answer = len(example.target_ids) + 1
        total += model(input_ids=ids, labels=labels).loss.item() * answer
        count += answer
    assert losses(run_dir)[0] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train.path=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["data.num_documents=null", "data.context_tokens=40"], r"over\s+data.context_tokens=40"),
        (
            ["data.concept=real", "data.num_train=1000"],
            "data.num_train=1000, but the split has 240",
        ),
        (["data.num_train=1", "batch.train=2"], "fewer than the 4 of one optimiser step"),
        (["reference.path=nowhere.json"], "nowhere.json: no such file; make one with"),
        (["attention=flash_attention_2"], "needs"),
        (["+callbacks.progress.evry=3"], "evry"),
        (["trainer.strategy=warp"], "trainer.strategy=warp: choose from auto, ddp, fsdp"),
        (["trainer.accelerator=warp"], "trainer: Lightning refuses"),
        (["model.name_or_path=./nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_an_error_of_the_user_s(tiny_folder, overrides, message):
    with pytest.raises(Exception) as caught:
        run_train(tiny_folder, *overrides)
    from sce.one_line import user_message

    line = user_message(caught.value)
    assert line is not None, repr(caught.value)
    import re

    assert re.search(message, line)
    assert "\n" not in line


def test_a_loss_that_diverged_is_one_line_that_says_what_to_do(tiny_folder):
    steps = ("optimizer.lr=1e30", "optimizer.warmup_steps=0", "val_every=4")
    with pytest.raises(InputError, match=r"loss is nan at step 2: .* a lower optimizer\.lr"):
        run_train(tiny_folder, *steps)


def test_splits_that_share_a_document_stop_the_run_before_anything_is_written(
    tiny_folder, tmp_path
):
    train = write_jsonl(tmp_path / "a.jsonl", [from_nq_like(make(n)) for n in range(9)])
    val = write_jsonl(tmp_path / "b.jsonl", [from_nq_like(make(n)) for n in range(8, 20)])
    with pytest.raises(InputError, match=r"data\.train and data\.val share"):
        run_train(tiny_folder, f"data.train.path={train}", f"data.val.path={val}")
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_dir_is_refused_and_untouched(tiny_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="mine exists"):
        run_train(tiny_folder, "run_dir=mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match=r"no checkpoints/last\.ckpt"):
        run_train(tiny_folder, "run_dir=mine", "resume=true")


def test_a_taken_name_is_numbered_on(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "runs" / "mdqa-high-high-seed0").mkdir(parents=True)
    assert run_train(tiny_folder, "trainer.max_steps=1").name == "mdqa-high-high-seed0-2"


def test_scoring_never_overwrites(tiny_folder, tmp_path):
    (tmp_path / "h.json").write_text("mine")
    with pytest.raises(InputError, match=r"h\.json exists"):
        run_score(tiny_folder, "out=h.json")
    assert (tmp_path / "h.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["out=file/h.json"], r"out=file/h\.json: nothing can be written in the folder .*file"),
        (["out=file/"], r"out=file/: nothing can be written in the folder .*file"),
        (["out=h.json", "audit=file/x/a.jsonl"], r"audit=file/x/a\.jsonl: nothing can be written"),
        (["out=h.json.gz"], r"out=h\.json\.gz: head scores are plain JSON; end the name in"),
        (["out=h.npz"], r"out=h\.npz: head scores are plain JSON"),
        (["out=h.json", "audit=h.npz"], r"audit=h\.npz is one of the files of out=h\.json"),
        (["out=all/", "audit=all/a.json"], r"audit=all/a\.json is one of the files of out=all/"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_model_loads(
    tiny_folder, tmp_path, monkeypatch, overrides, message
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("sce.assemble.assemble", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(InputError, match=message):
        run_score(tiny_folder, *overrides)
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_of_outputs_are_made(tiny_folder, tmp_path):
    run_score(tiny_folder, "out=a/b/h.json", "audit=c/d/a.jsonl", "model.revision=v1")
    assert (tmp_path / "c" / "d" / "a.jsonl").is_file()
    assert HeadScores.load(tmp_path / "a/b/h.json").provenance["revision"] == "v1"


def test_all_scorers_of_a_gated_model_are_all_but_ov_write(save_model, tmp_path, caplog):
    from copy import deepcopy

    from families import CONFIGS

    config = deepcopy(CONFIGS["qwen3_next"])
    config.vocab_size, config.max_position_embeddings = 800, 4096
    folder, few = save_model(config), "data.num_reference=2"
    caplog.set_level("INFO", logger="sce")
    names = {file.name.split("-")[0] for file in run_score(folder, "out=all/", few)}
    assert names == {"copy", "copy_needle", "query_focused"}
    (line,) = [r.getMessage() for r in caplog.records if "ov_write" in r.getMessage()]
    assert line.startswith("no ov_write: layer 1")
    with pytest.raises(InputError, match="gates its heads' outputs"):
        run_score(folder, "out=named/", few, "scorer=ov_write")


def test_the_audit_file_reproduces_every_score(peaky_folder, tmp_path):
    run_score(peaky_folder, "out=h.json", "audit=a.jsonl", MORE)
    scores = HeadScores.load(tmp_path / "h.json")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == scores.num_examples == 40
    np.testing.assert_allclose(
        np.mean([r["scores"] for r in rows], axis=0), scores.scores, atol=1e-5
    )
    assert set(rows[0]) == CONTRACT


CONTRACT = {"id", "prompt_ids", "evidence_positions", "answer_ids", "scores"}
CITING = ("data=summhay", "data.num_documents=8", "data.num_reference=2", "scorer=insight")
NEEDLE = ("data=needle", "data.num_documents=null", "data.context_tokens=500")


def audited(folder, *overrides) -> list[dict]:
    run_score(folder, "out=h.json", "audit=a.jsonl", *overrides)
    return [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]


@torch.no_grad()
def attention(folder, ids) -> np.ndarray:
    """[layers, heads, rows, columns] of the stock model."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    found = model(torch.tensor([ids]), output_attentions=True).attentions
    return torch.cat(list(found)).numpy()


def test_query_focused_can_be_worked_out_from_its_audit(peaky_folder):
    rows = audited(peaky_folder, "scorer=query_focused", "mode=prefill")
    more = {"question", "gold", "null_start", "null_ids", "num_null"}
    assert set(rows[0]) == CONTRACT | more
    for row in rows:
        gold = [p for first, end in row["gold"] for p in range(first, end)]
        asked = attention(peaky_folder, row["prompt_ids"])[:, :, slice(*row["question"])]
        null = row["prompt_ids"][: row["null_start"]] + row["null_ids"]
        unasked = attention(peaky_folder, null)[:, :, -row["num_null"] :]
        mass, null_mass = (a[..., gold].sum(-1).mean(-1) for a in (asked, unasked))
        np.testing.assert_allclose(row["scores"], mass - null_mass, atol=1e-4)
        assert row["answer_ids"] == []


def test_insight_can_be_worked_out_from_its_audit(peaky_folder):
    rows = audited(peaky_folder, *CITING)
    assert set(rows[0]) == CONTRACT | {"needles", "cited"}
    assert any(span > 0 for row in rows for span in row["cited"])
    for row in rows:
        span = dict(zip(row["evidence_positions"], row["needles"], strict=True))
        weights = attention(peaky_folder, row["prompt_ids"] + row["answer_ids"])
        steps = weights[:, :, len(row["prompt_ids"]) - 1 : -1].argmax(-1)
        expected = [
            np.vectorize(lambda j, cited=cited, span=span: span.get(j) == cited)(steps[..., t])
            for t, cited in enumerate(row["cited"])
            if cited >= 0
        ]
        np.testing.assert_allclose(row["scores"], np.mean(expected, axis=0), atol=1e-6)


def test_the_audit_of_greedy_citations_names_the_labels_spans(peaky_folder):
    for row in audited(peaky_folder, *CITING, "mode=greedy"):
        assert set(row) == CONTRACT | {"needles", "label_spans"}
        assert set(row["label_spans"].values()) == set(row["needles"])


def test_an_audit_is_written_where_no_example_is_kept(tiny_folder):
    options = (*NEEDLE, "scorer=wu2024_code", "mode=greedy")
    with pytest.raises(InputError, match="none of the 5 answers"):
        audited(tiny_folder, *options)
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert set(row) == CONTRACT | {"answers"}
        assert row["answers"]
        assert {score for layer in row["scores"] for score in layer} == {None}


@pytest.mark.parametrize("mode", ["teacher_forced", "greedy"])
def test_scores_equal_those_worked_out_from_full_attention(peaky_folder, tmp_path, mode):
    """The stock model, eager, one example at a time; nothing of sce but the audit file."""
    run_score(peaky_folder, "out=h.json", "audit=a.jsonl", f"mode={mode}", MORE)
    model = AutoModelForCausalLM.from_pretrained(peaky_folder, attn_implementation="eager")
    found = 0.0
    for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines()):
        ids, evidence = row["prompt_ids"] + row["answer_ids"], set(row["evidence_positions"])
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_attentions=True)
        expected = np.zeros((3, 4))
        for t, token in enumerate(row["answer_ids"]):
            step = len(row["prompt_ids"]) - 1 + t
            for layer, weights in enumerate(out.attentions):
                for head in range(4):
                    j = int(weights[0, head, step, : step + 1].argmax())
                    expected[layer, head] += j in evidence and ids[j] == token
        np.testing.assert_allclose(
            row["scores"], expected / max(1, len(row["answer_ids"])), atol=1e-5
        )
        found += expected.sum()
    # A random model copies nothing by itself; greedy hits are the planted and the real model's.
    assert found > 0 or mode == "greedy"


def test_the_command_ends_with_a_table_and_exit_code_0(tiny_folder, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "sce.train", *TINY, f"model.name_or_path={tiny_folder}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    output = result.stderr + result.stdout
    assert "F1" in output
    assert "next       python -m sce.train" in output
    assert math.isfinite(read_jsonl(tmp_path / "runs/mdqa-high-high-seed0/records.jsonl")[-1]["f1"])
