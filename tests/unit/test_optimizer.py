"""AdamW as it was asked for, and the learning rates of a run by hand."""

import math

import pytest
import torch
from torch import nn

from sce.optimizer import adamw, take_up
from sce.options import OptimizerOptions


def rates(num_steps: int, **given) -> list[float]:
    """The learning rate of every step, and the one after the last."""
    optimizer, schedule = adamw([nn.Parameter(torch.ones(1))], OptimizerOptions(**given), num_steps)
    found = []
    for _ in range(num_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_linear_warm_up_then_half_a_cosine_to_zero():
    found = rates(8, lr=0.4, warmup_steps=3)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx(
        [0.2 * (1 + math.cos(math.pi * n / 5)) for n in range(1, 6)], abs=1e-12
    )
    assert found[-1] == pytest.approx(0, abs=1e-12)


def test_without_warm_up_the_first_step_is_a_full_one():
    assert rates(2, lr=0.4, warmup_steps=0) == pytest.approx([0.4, 0.2, 0.0], abs=1e-12)


def test_adamw_takes_all_that_is_asked_for():
    asked = OptimizerOptions(lr=0.1, betas=[0.8, 0.95], eps=1e-5, weight_decay=0.3)
    weights = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))]
    optimizer, _ = adamw(weights, asked, 10)
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert group["params"] == weights
    own = {name: group[name] for name in ("betas", "eps", "weight_decay")}
    assert own == {"betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.3}


def test_a_longer_run_goes_on_at_its_own_rate():
    """A checkpoint's is that of the run it is of, which may have ended at 0."""
    options = OptimizerOptions(lr=0.4, warmup_steps=0)
    optimizer, schedule = adamw([nn.Parameter(torch.ones(1))], options, 8)
    optimizer.param_groups[0]["lr"] = 0.0
    schedule.last_epoch = 4
    take_up(schedule)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
