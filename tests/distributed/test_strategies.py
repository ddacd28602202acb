"""One process, DDP and FSDP2 over two gloo ranks: the same run, and each goes on for another."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributed import ReduceOp

from callbacks.throughput import _over_ranks as over_ranks
from ranks import run_ranks
from runs import run_train
from sce import module, parallel
from sce.errors import InputError
from sce.records import HeadScores, read_jsonl
from strategies import (
    SHARED,
    STRATEGIES,
    assert_same_training,
    checkpoint,
    column,
    rows,
    stopped,
    trained,
)


@pytest.fixture(scope="module")
def runs(module_folder, tiny_folder, tmp_path_factory):
    names = ("one", "ddp", "fsdp")
    for name in names:
        trained(tiny_folder, name, f"run_dir={name}")
    return {name: Path(name).absolute() for name in names}


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_losses_norms_and_adapter_are_those_of_one_process(runs, name):
    for metric in ("train/loss", "train/grad_norm"):
        one, two = (column(runs[run], metric) for run in ("one", name))
        assert list(one) == list(two) == [1, 2, 3, 4]
        np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-6)
    assert_same_training(runs["one"], runs[name])


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_every_example_counts_once_and_metrics_are_logged_once(runs, name):
    assert list(column(runs[name], "val/f1")) == [0, 2, 4]
    for one, two in zip(rows(runs["one"]), rows(runs[name]), strict=True):
        assert (two["num_examples"], two["num_reference_examples"]) == (6, 5)
        assert one["answer_nll"] == pytest.approx(two.pop("answer_nll"), rel=1e-6)
        assert one["target_tokens"] == two["target_tokens"]
        assert one["f1"] == two["f1"]


def test_memory_and_time_are_those_of_the_worst_rank():
    def run():
        rank = int(os.environ["LOCAL_RANK"])
        names = {"rank": rank, "world_size": 2}
        torch.distributed.init_process_group("gloo", **names)
        module = SimpleNamespace(device=torch.device("cpu"), trainer=SimpleNamespace(world_size=2))
        both = [over_ranks(module, [1.0 + rank, 5.0], how) for how in (ReduceOp.SUM, ReduceOp.MAX)]
        torch.distributed.destroy_process_group()
        assert both == [[3.0, 10.0], [2.0, 5.0]]

    run_ranks(run)


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("ddp", ("ov_write",)),  # reads weights and values too
        ("fsdp", ("ov_write",)),
        ("fsdp", ("query_focused", "mode=prefill")),  # reads the prompt, and it twice
        ("fsdp", ("copy_needle",)),
    ],
)
def test_every_rank_answers_and_scores_what_one_process_does(
    module_folder, peaky_folder, name, scorer
):
    """Weights so large that heads write something."""
    found: dict = {}
    for strategy in ("one", name):
        run_dir = module_folder / f"peaky-{strategy}-{scorer[0]}"
        more = ("trainer.max_steps=1", "val_every=1", "optimizer.lr=1e-4")
        more = (*more, f"scorer={scorer[0]}", *scorer[1:])
        if not (
            run_dir / "adapter" / "sce.json"
        ).exists():  # one process's is that of every strategy
            trained(peaky_folder, strategy, *more, "data.num_reference=9", f"run_dir={run_dir}")
        answers = read_jsonl(run_dir / "predictions" / "step-000001.jsonl")
        found[strategy] = (
            answers,
            HeadScores.load(run_dir / "heads" / "step-000001.json").per_example,
        )
    (one, scores), (two, others) = found.values()
    nll, other_nll = ([row.pop("nll") for row in rows] for rows in (one, two))
    assert one == two
    assert nll == pytest.approx(other_nll, rel=1e-5)  # sums in another order
    assert len({row["prediction"] for row in one}) > 1
    assert np.abs(scores).max() > 0.01
    np.testing.assert_allclose(scores, others, rtol=1e-4, atol=1e-4)


def test_the_adapter_of_sharded_training_loads_in_one_process(runs, tiny_folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model = PeftModel.from_pretrained(base, str(runs["fsdp"] / "adapter"))
    saved = checkpoint(runs["fsdp"])["state_dict"]
    own = dict(model.named_parameters())
    for name, weight in saved.items():
        assert torch.equal(own[name.removeprefix("net.")], weight)
        assert weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("stops", "after"),
    [
        ({"one": 3}, "fsdp"),
        ({"fsdp": 3}, "ddp"),
        ({"ddp": 1}, "one"),
        ({"fsdp": 2}, "fsdp"),  # a validation was due
        ({"fsdp": 1, "ddp": 2}, "fsdp"),  # twice in one epoch
    ],
)
def test_a_signal_to_one_rank_stops_all_and_any_strategy_goes_on(runs, tiny_folder, stops, after):
    run_dir = runs["one"].parent / "-".join((*stops, after))
    for number, (strategy, step) in enumerate(stops.items()):
        stopped(tiny_folder, strategy, step, str(run_dir), f"resume={bool(number)}")
        assert checkpoint(run_dir)["global_step"] == step
    trained(tiny_folder, after, f"run_dir={run_dir}", "resume=true")
    same = {*stops, after} == {after}
    assert_same_training(runs[after], run_dir, exactly=same)
    assert [row["step"] for row in rows(run_dir)] == [0, 2, 4]
    if same:
        assert rows(run_dir) == rows(runs[after])


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_rank_without_the_checkpoint_ends_all_of_them_in_one_line(
    runs, tiny_folder, tmp_path, name
):
    shared = tmp_path / "shared"
    shutil.copytree(runs[name], shared)

    def run():
        if os.environ["LOCAL_RANK"] == "1":  # whose machine does not see the folder
            parallel._step_of = lambda checkpoint: None
        line = "rank 0 goes on from the checkpoint of step 4, but rank 1 sees no checkpoint in"
        options = (f"run_dir={shared}", "resume=true", "trainer.max_steps=6")
        with pytest.raises(InputError, match=line):
            run_train(tiny_folder, *SHARED, *STRATEGIES[name], *options)

    run_ranks(run)


def test_ranks_decode_as_long_as_their_own_answers_take(runs, tiny_folder, monkeypatch):
    """Every weight is there while answers are decoded, so that no rank waits for another's step."""
    decode = module.decode

    def longer(model, batch, settings):
        more = 3 * int(os.environ["LOCAL_RANK"])
        return decode(model, batch, replace(settings, max_new_tokens=2 + more, fixed_steps=True))

    monkeypatch.setattr(module, "decode", longer)
    run_dir = runs["fsdp"].parent / "unequal"
    trained(tiny_folder, "fsdp", f"run_dir={run_dir}")
    assert_same_training(runs["fsdp"], run_dir, exactly=True)


def test_weights_gathered_while_validating_can_be_trained_on(runs, tiny_folder, monkeypatch):
    """Lightning validates in inference mode, but for gloo: what FSDP gathers there is no good."""
    monkeypatch.setattr("lightning.pytorch.loops.utilities._distributed_is_initialized", bool)
    run_dir = runs["fsdp"].parent / "without-gloo-s-exemption"
    trained(tiny_folder, "fsdp", f"run_dir={run_dir}")
    assert_same_training(runs["fsdp"], run_dir, exactly=True)


def test_dropout_takes_the_same_from_sharded_weights_and_goes_on_with_it(runs, tiny_folder):
    """Drawn by seed, step and rank, so not as one process draws it."""
    dropout = "lora.dropout=0.3"
    trained(tiny_folder, "ddp", dropout, "run_dir=dropout")
    stopped(tiny_folder, "fsdp", 3, "dropout-parted", dropout)
    trained(tiny_folder, "fsdp", dropout, "run_dir=dropout-parted", "resume=true")
    whole, parted = Path("dropout"), Path("dropout-parted")
    assert_same_training(whole, parted)
    norms = [[*column(run_dir, "train/grad_norm").values()] for run_dir in (runs["ddp"], whole)]
    assert not np.allclose(*norms, rtol=1e-2)


def test_checkpoints_hold_the_trained_parts_alone(runs):
    for run_dir in runs.values():
        state = checkpoint(run_dir)["state_dict"]
        assert state and all(".lora_" in name for name in state)


def test_another_batch_a_step_is_refused(runs, tiny_folder):
    with pytest.raises(InputError, match="examples a step=4, this command examples a step=2"):
        run_train(tiny_folder, *SHARED, "batch.train=1", f"run_dir={runs['one']}", "resume=true")
