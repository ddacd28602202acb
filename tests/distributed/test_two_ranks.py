"""Two gloo ranks give what one process gives, and write it once."""

import csv

import numpy as np
import pytest
import torch

from ranks import run_ranks
from runs import run_train
from sce.records import HeadScores, read_jsonl

# Answers of unequal length, and five reference examples in batches of eight: one rank has none.
SHARED = ("logger=csv", "optimizer.lr=0.01", "data.concept=real", "batch.eval=8", "seed=3")
ONE = ("batch.train=4", "trainer.accumulate_grad_batches=1", "run_dir=one")
TWO = (
    "batch.train=2",
    "trainer.accumulate_grad_batches=1",
    "trainer.strategy=ddp",
    "trainer.devices=2",
    "trainer.accelerator=cpu",
    "run_dir=two",
)


@pytest.fixture(scope="module")
def both(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_train(tiny_folder, *SHARED, *ONE)
        run_ranks(lambda: run_train(tiny_folder, *SHARED, *TWO))
    return folder / "one", folder / "two"


def column(run_dir, name):
    with (run_dir / "csv" / "version_0" / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row.get(name)]
    return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]


def test_losses_and_gradient_norms_are_the_same(both):
    for name in ("train/loss", "train/grad_norm"):
        one, two = (column(run_dir, name) for run_dir in both)
        assert one[0] == two[0] == [1, 2, 3, 4]
        np.testing.assert_allclose(one[1], two[1], rtol=2e-5)


def test_the_adapter_is_the_same(both):
    one, two = (
        torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run_dir in both
    )
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=2e-5, rtol=1e-3)


def test_every_example_counts_once_and_metrics_are_logged_once(both):
    for run_dir in both:
        assert column(run_dir, "val/f1")[0] == [0, 2, 4]
    rows = [read_jsonl(run_dir / "records.jsonl") for run_dir in both]
    for one, two in zip(*rows, strict=True):
        assert (one["num_examples"], one["num_reference_examples"]) == (6, 5)
        assert (two["num_examples"], two["num_reference_examples"]) == (6, 5)
        assert one["f1"] == pytest.approx(two["f1"])
        assert one["answer_nll"] == pytest.approx(two["answer_nll"], rel=1e-5)
        assert one["target_tokens"] == two["target_tokens"]


def test_scores_are_the_same(both):
    for step in (0, 2, 4):
        one, two = (HeadScores.load(d / "heads" / f"step-{step:06d}.json") for d in both)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
