"""What the LightningModule does by itself, without a trainer around it."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import nn

from sce.decode import DecodeSettings
from sce.module import SceModule
from sce.options import OptimizerOptions
from test_records import FACTS


def drawn(seed: int, position: int, rank: int) -> torch.Tensor:
    """The first numbers that a micro-batch draws, as a dropout mask would."""
    facts = replace(FACTS, seed=seed)
    module = SceModule(
        nn.Identity, str, optimizer=OptimizerOptions(), settings=DecodeSettings(), facts=facts
    )
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=position))
    module._trainer = SimpleNamespace(global_rank=rank, fit_loop=loop)
    module.on_train_batch_start(None, 0)
    return torch.rand(8)


def test_a_micro_batch_draws_by_seed_position_and_rank_whatever_was_drawn_before():
    places = [(seed, at, rank) for seed in (0, 1) for at in (0, 7) for rank in (0, 1)]
    first = {place: drawn(*place) for place in places}
    assert len({tuple(mask.tolist()) for mask in first.values()}) == len(places)
    for place in reversed(places):
        torch.rand(5)
        assert torch.equal(drawn(*place), first[place])
