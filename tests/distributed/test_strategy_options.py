"""What is tuned, recomputed, accumulated and shared is the same over ranks as in one process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from strategies import assert_same_training, checkpoint, column, rows, stopped, trained


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_accumulation_readers_and_shared_contexts_go_on_as_in_one_process(
    module_folder, tiny_folder, name
):
    """Two contexts of two questions a micro-batch, two micro-batches a step, stopped at step 3."""
    more = (
        "data.questions_per_context=2",
        "data.num_train=32",
        "trainer.accumulate_grad_batches=2",
    )
    more = (*more, "batch.workers=1")
    whole, parted = (module_folder / f"shared-{kind}" for kind in ("one", name))
    if not (whole / "adapter" / "sce.json").exists():
        trained(tiny_folder, "one", *more, "batch.train=4", f"run_dir={whole}")
    stopped(tiny_folder, name, 3, str(parted), *more)
    trained(tiny_folder, name, *more, f"run_dir={parted}", "resume=true")
    assert_same_training(whole, parted)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("ddp", ("lora=none", "optimizer.lr=1e-3")),
        ("fsdp", ("lora=none", "optimizer.lr=1e-3")),
        ("fsdp", ("lora=all_linear",)),
        ("fsdp", ("model.activation_checkpointing=full", "model.offload_activations=true")),
    ],
)
def test_whatever_is_tuned_or_recomputed_two_ranks_learn_what_one_process_does(
    module_folder, tiny_folder, name, more
):
    place = "-".join(more).replace("=", "-")
    dirs = [module_folder / f"{strategy}-{place}" for strategy in ("one", name)]
    for strategy, run_dir in zip(("one", name), dirs, strict=True):
        options = ("trainer.max_steps=2", "val_every=2", f"run_dir={run_dir}")
        if not (run_dir / "adapter" / "sce.json").exists():
            trained(tiny_folder, strategy, *more, *options)
    for figure in ("train/loss", "train/grad_norm"):
        found = [list(column(run_dir, figure).values()) for run_dir in dirs]
        np.testing.assert_allclose(*found, rtol=1e-6, err_msg=figure)
    assert_same_training(*dirs)


def test_ranks_without_a_share_of_some_weights_train_save_and_load(module_folder, tiny_folder):
    """Three ranks share adapters of rank 2: one of them has no row of half of the matrices."""
    more = ("lora.r=2", "data.num_train=12")
    whole, parted = (module_folder / f"uneven-{kind}" for kind in ("whole", "parted"))
    alone = ("batch.train=3", "trainer.accumulate_grad_batches=1")
    trained(tiny_folder, "one", *more, *alone, f"run_dir={whole}")
    stopped(tiny_folder, "three", 3, str(parted), *more, "batch.train=1")
    trained(tiny_folder, "three", *more, "batch.train=1", f"run_dir={parted}", "resume=true")
    assert_same_training(whole, parted)


# bfloat16 has 8 bits, of which rounding moves the last, on each kind of processor otherwise: losses
# differ by 2e-5 of their value, norms by up to 1.4e-3, weights, the largest 0.02, by up to 3e-4.
TOLERANCES = {"train/loss": 1e-3, "train/grad_norm": 1e-2}
WEIGHT_TOLERANCE = 1e-3


def test_sharded_bfloat16_with_selective_recomputation_is_that_of_one_process(
    module_folder, tiny_folder
):
    """The frozen base in bfloat16, the adapter in float32, attention kept and the rest redone."""
    options = ("model.dtype=bfloat16", "model.activation_checkpointing=selective")
    for name in ("one", "fsdp"):
        trained(tiny_folder, name, *options, f"run_dir={name}-bf16")
    one, two = (Path(f"{name}-bf16").absolute() for name in ("one", "fsdp"))
    for metric, tolerance in TOLERANCES.items():
        found = [list(column(run_dir, metric).values()) for run_dir in (one, two)]
        np.testing.assert_allclose(*found, rtol=tolerance, err_msg=metric)
    first, second = (checkpoint(run_dir)["state_dict"] for run_dir in (one, two))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert weight.dtype == second[name].dtype == torch.float32
        torch.testing.assert_close(weight, second[name], atol=WEIGHT_TOLERANCE, rtol=0)
    assert max(w.abs().max() for n, w in first.items() if "lora_B" in n) > 10 * WEIGHT_TOLERANCE
    assert [row["step"] for row in rows(two)] == [0, 2, 4]
