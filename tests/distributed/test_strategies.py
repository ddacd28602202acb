"""One process, DDP and FSDP2 over two gloo ranks: the same run, and each goes on for another."""

import csv
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributed import ReduceOp

from callbacks.throughput import _over_ranks as over_ranks
from ranks import run_ranks
from runs import run_train
from sce import parallel
from sce.errors import InputError, StoppedBySignal
from sce.module import SceModule
from sce.records import HeadScores, read_jsonl

# Answers of unequal length, and five reference examples in batches of eight: one rank has none.
# With AdamW's own eps a gradient of nothing but rounding would make a whole step.
SHARED = ("logger=csv", "optimizer.lr=0.01", "optimizer.eps=1e-4", "data.concept=real")
SHARED = (*SHARED, "batch.eval=8", "seed=3")
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "batch.train=2")
TWO = (*TWO, "trainer.accumulate_grad_batches=1")
STRATEGIES = {
    "one": ("batch.train=2", "trainer.accumulate_grad_batches=2"),
    "ddp": (*TWO, "trainer.strategy=ddp"),
    "fsdp": (*TWO, "trainer.strategy=fsdp"),
    "three": (*TWO, "trainer.devices=3", "trainer.strategy=fsdp"),
}
RANKS = {"one": 1, "ddp": 2, "fsdp": 2, "three": 3}


def trained(model, strategy: str, *overrides: str) -> None:
    options = (*SHARED, *STRATEGIES[strategy], *overrides)
    if strategy == "one":
        run_train(model, *options)
    else:
        run_ranks(lambda: run_train(model, *options), RANKS[strategy])


def stopped(model, strategy: str, step: int, run_dir: str, *more: str) -> None:
    """Train until the last rank, and it alone, is told to stop while it takes step `step`."""
    last = str(RANKS[strategy] - 1)
    take = SceModule.optimizer_step

    def interrupted(self, *args, **kwargs):
        take(self, *args, **kwargs)
        if self.global_step + 1 == step and os.environ.get("LOCAL_RANK", "0") == last:
            signal.raise_signal(signal.SIGTERM)

    def run():
        with pytest.raises(StoppedBySignal, match=f"stopped by SIGTERM at step {step}"):
            run_train(model, *SHARED, *STRATEGIES[strategy], *more, f"run_dir={run_dir}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceModule, "optimizer_step", interrupted)
        run() if strategy == "one" else run_ranks(run, RANKS[strategy])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("strategies"))
        yield tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def runs(folder, tiny_folder, tmp_path_factory):
    names = ("one", "ddp", "fsdp")
    for name in names:
        trained(tiny_folder, name, f"run_dir={name}")
    return {name: Path(name).absolute() for name in names}


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def rows(run_dir):
    left_out = ("seconds", "time", "run", "warnings")
    found = read_jsonl(run_dir / "records.jsonl")
    return [{k: v for k, v in row.items() if k not in left_out} for row in found]


def column(run_dir, name):
    found = {}
    for file in sorted((run_dir / "csv").glob("version_*/metrics.csv")):
        with file.open() as stream:
            lines = [line for line in csv.DictReader(stream) if line.get(name)]
        assert len({line["step"] for line in lines}) == len(lines)
        found |= {int(line["step"]): float(line[name]) for line in lines}
    return found


def assert_same_training(one, other, *, exactly: bool = False) -> None:
    """Weights, moments and the last row; within float32's rounding unless exactly."""
    first, second = checkpoint(one), checkpoint(other)
    states = [first["state_dict"], second["state_dict"]]
    for name in first["optimizer_states"][0]["state"]:
        for moment in ("exp_avg", "exp_avg_sq"):
            for state, saved in zip(states, (first, second), strict=True):
                state[f"{name}.{moment}"] = saved["optimizer_states"][0]["state"][name][moment]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[0].items():
        if exactly:
            assert torch.equal(weight, states[1][name]), name
        else:
            torch.testing.assert_close(weight, states[1][name], atol=TOLERANCE, rtol=1e-5)


TOLERANCE = 1e-6


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


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_scores_are_those_of_one_process(runs, name):
    for step in (0, 2, 4):
        one, two = (HeadScores.load(runs[n] / f"heads/step-{step:06d}.json") for n in ("one", name))
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
        np.testing.assert_allclose(one.per_example, two.per_example, atol=1e-6)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_every_rank_answers_and_scores_what_one_process_does(folder, peaky_folder, name):
    """Weights so large that heads write something; a score that reads weights and values too."""
    found: dict = {}
    for strategy in ("one", name):
        run_dir = folder / f"peaky-{strategy}-beside-{name}"
        more = ("trainer.max_steps=1", "val_every=1", "scorer=ov_write", "optimizer.lr=1e-4")
        trained(peaky_folder, strategy, *more, "data.num_reference=9", f"run_dir={run_dir}")
        answers = read_jsonl(run_dir / "predictions" / "step-000001.jsonl")
        found[strategy] = (
            answers,
            HeadScores.load(run_dir / "heads" / "step-000001.json").per_example,
        )
    (one, scores), (two, others) = found.values()
    assert one == two
    assert len({row["prediction"] for row in one}) > 1
    assert np.abs(scores).max() > 0.01
    np.testing.assert_allclose(scores, others, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_accumulation_readers_and_shared_contexts_go_on_as_in_one_process(
    folder, tiny_folder, name
):
    """Two contexts of two questions a micro-batch, two micro-batches a step, stopped at step 3."""
    more = (
        "data.questions_per_context=2",
        "data.num_train=32",
        "trainer.accumulate_grad_batches=2",
    )
    more = (*more, "batch.workers=1")
    whole, parted = (folder / f"shared-{kind}-{name}" for kind in ("whole", "parted"))
    trained(tiny_folder, "one", *more, "batch.train=4", f"run_dir={whole}")
    stopped(tiny_folder, name, 3, str(parted), *more)
    trained(tiny_folder, name, *more, f"run_dir={parted}", "resume=true")
    assert_same_training(whole, parted)


def test_ranks_without_a_share_of_some_weights_train_save_and_load(folder, tiny_folder):
    """Three ranks share adapters of rank 2: one of them has no row of half of the matrices."""
    more = ("lora.r=2", "data.num_train=12")
    whole, parted = (folder / f"uneven-{kind}" for kind in ("whole", "parted"))
    alone = ("batch.train=3", "trainer.accumulate_grad_batches=1")
    trained(tiny_folder, "one", *more, *alone, f"run_dir={whole}")
    stopped(tiny_folder, "three", 3, str(parted), *more, "batch.train=1")
    trained(tiny_folder, "three", *more, "batch.train=1", f"run_dir={parted}", "resume=true")
    assert_same_training(whole, parted)


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
    ("before", "after", "step"),
    [
        ("one", "fsdp", 3),
        ("fsdp", "ddp", 3),
        ("ddp", "one", 1),
        ("fsdp", "fsdp", 2),  # a validation was due
    ],
)
def test_a_signal_to_one_rank_stops_all_and_any_strategy_goes_on(
    runs, tiny_folder, before, after, step
):
    run_dir = runs["one"].parent / f"{before}-{after}"
    stopped(tiny_folder, before, step, str(run_dir))
    assert checkpoint(run_dir)["global_step"] == step
    trained(tiny_folder, after, f"run_dir={run_dir}", "resume=true")
    assert_same_training(runs[after], run_dir, exactly=before == after)
    assert [row["step"] for row in rows(run_dir)] == [0, 2, 4]
    if before == after:
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


def test_checkpoints_hold_the_trained_parts_alone(runs):
    for run_dir in runs.values():
        state = checkpoint(run_dir)["state_dict"]
        assert state and all(".lora_" in name for name in state)


def test_another_batch_a_step_is_refused(runs, tiny_folder):
    with pytest.raises(InputError, match="examples a step=4, this command examples a step=2"):
        run_train(tiny_folder, *SHARED, "batch.train=1", f"run_dir={runs['one']}", "resume=true")


# bfloat16 has 8 bits, of which rounding moves the last: losses differ by 2e-5 of their value and
# weights, of which the largest are 0.02, by up to 3e-4.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-3, 1e-3


def test_sharded_bfloat16_with_selective_recomputation_is_that_of_one_process(folder, tiny_folder):
    """The frozen base in bfloat16, the adapter in float32, attention kept and the rest redone."""
    options = ("model.dtype=bfloat16", "model.activation_checkpointing=selective")
    for name in ("one", "fsdp"):
        trained(tiny_folder, name, *options, f"run_dir={name}-bf16")
    one, two = (Path(f"{name}-bf16").absolute() for name in ("one", "fsdp"))
    for metric in ("train/loss", "train/grad_norm"):
        found = [list(column(run_dir, metric).values()) for run_dir in (one, two)]
        np.testing.assert_allclose(*found, rtol=LOSS_TOLERANCE)
    first, second = (checkpoint(run_dir)["state_dict"] for run_dir in (one, two))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert weight.dtype == second[name].dtype == torch.float32
        torch.testing.assert_close(weight, second[name], atol=WEIGHT_TOLERANCE, rtol=0)
    assert max(w.abs().max() for n, w in first.items() if "lora_B" in n) > 10 * WEIGHT_TOLERANCE
    assert [row["step"] for row in rows(two)] == [0, 2, 4]
