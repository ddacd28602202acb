"""Every set of heads answers every example: the loop of the interventions.

Batches are outermost. Where only the answer's positions are meddled with, the keys and values of a
batch's context are computed once and serve every set and every control.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from sce.data.batch import Batch
from sce.data.encode import Encoded
from sce.data.loader import eval_loader
from sce.decode import DecodeSettings, Outcome, decode, keeps_state, prefix_cache
from sce.interventions.effects import Answers
from sce.interventions.patching import Side, patched
from sce.interventions.select import Heads
from sce.metrics import metrics_for, substring_exact_match
from sce.model.adapters import use_adapter

SOURCE, TARGET = "source", "target"
WAYS = {"forward": (SOURCE, TARGET), "reverse": (TARGET, SOURCE)}
"""Direction -> (whose outputs are taken, who is patched)."""
Act = Callable[[Batch, Heads], AbstractContextManager[Any]]
"""An intervention on a set of heads, to be entered while a batch is answered."""
_log = logging.getLogger("sce")


@dataclass(frozen=True)
class Answering:
    """How answers come about."""

    model: nn.Module
    """In eval mode."""
    settings: DecodeSettings
    detokenize: Callable[[Sequence[int]], str]
    task: str
    """Whose metrics measure the answers."""
    batch_size: int

    def batches(self, encoded: Sequence[Encoded]) -> Iterator[Batch]:
        """The examples in batches of like length, on the model's device."""
        device: torch.device = next(self.model.parameters()).device  # type: ignore[assignment]
        for batch in eval_loader(encoded, self.batch_size):
            yield batch.to(device)

    def each(
        self, encoded: Sequence[Encoded], sets: Sequence[Heads], act: Act, *, share_context: bool
    ) -> dict[Heads, list[Outcome]]:
        """What comes out with every set, ordered by example id.

        Args:
            encoded: the examples.
            sets: which heads; NO_HEADS runs without an intervention.
            act: the intervention.
            share_context: compute a batch's context once, without intervention, for all sets.
        """
        found: dict[Heads, list[Outcome]] = {heads: [] for heads in sets}
        share = share_context and not keeps_state(self.model)
        progress = _Progress(len(encoded), len(sets))
        for batch in self.batches(encoded):
            prefix = prefix_cache(self.model, batch) if share else None
            for heads, outcomes in found.items():
                with act(batch, heads):
                    outcomes += decode(self.model, batch, self.settings, prefix)
            progress.add(len(batch.examples))
        for outcomes in found.values():
            outcomes.sort(key=_id)
        return found

    def answers(self, outcomes: Sequence[Outcome]) -> Answers:
        """The outcomes measured."""
        metrics = metrics_for(self.task, sync=False)
        texts = [self.detokenize(outcome.answer_ids) for outcome in outcomes]
        for text, outcome in zip(texts, outcomes, strict=True):
            for metric in metrics.values():
                metric.update(text, outcome.example.answers)
        values = {name: np.atleast_1d(m.compute().numpy()) for name, m in metrics.items()}
        return Answers(
            ids=tuple(outcome.example.id for outcome in outcomes),
            predictions=tuple(texts),
            f1=values["f1"],
            exact_match=values["exact_match"],
            nll=np.array([outcome.nll for outcome in outcomes]),
            num_labels=np.array([outcome.num_labels for outcome in outcomes]),
        )

    def right(self, outcomes: Sequence[Outcome]) -> np.ndarray:
        """1 where a closed-book question is answered right, else 0."""
        return np.array(
            [
                bool(substring_exact_match(self.detokenize(o.answer_ids), o.example.answers))
                for o in outcomes
            ],
            dtype=np.float64,
        )

    def patched(
        self,
        encoded: Sequence[Encoded],
        adapters: Mapping[str, str],
        sets: Sequence[Heads],
        ways: Sequence[str],
    ) -> "Patchings":
        """Two adapters of the model as they are, and one patched from the other.

        The contexts of both are computed once a batch. In a model that keeps a state there is no
        such sharing.

        Args:
            encoded: the examples.
            adapters: SOURCE and TARGET -> name of the adapter, or UNTUNED.
            sets: which heads are patched, none of them empty.
            ways: of WAYS.
        """
        found = Patchings(
            {name: [] for name in adapters}, {way: {heads: [] for heads in sets} for way in ways}
        )
        progress = _Progress(len(encoded), len(sets) * len(ways) + len(adapters))
        for batch in self.batches(encoded):
            contexts = {name: self._context(batch, adapter) for name, adapter in adapters.items()}
            for name, adapter in adapters.items():
                use_adapter(self.model, adapter)
                found.originals[name] += decode(self.model, batch, self.settings, contexts[name])
            for way, by_set in found.patched.items():
                for heads, outcomes in by_set.items():
                    with self._patch(batch, heads, adapters, contexts, way) as context:
                        outcomes += decode(self.model, batch, self.settings, context)
            progress.add(len(batch.examples))
        found.order()
        return found

    def _context(self, batch: Batch, adapter: str) -> DynamicCache | None:
        """Keys and values of a batch's context under an adapter."""
        use_adapter(self.model, adapter)
        return None if keeps_state(self.model) else prefix_cache(self.model, batch)

    @contextmanager
    def _patch(
        self,
        batch: Batch,
        heads: Heads,
        adapters: Mapping[str, str],
        contexts: Mapping[str, DynamicCache | None],
        way: str,
    ) -> Iterator[DynamicCache | None]:
        """Patch the answer's positions of a batch; yields the context to go on from."""
        giver, taker = WAYS[way]
        given, taken = contexts[giver], contexts[taker]
        with patched(
            Side(self.model, adapters[taker]),
            Side(self.model, adapters[giver]),
            heads,
            from_column=batch.num_prompt - 1,
            prefixes=None if given is None or taken is None else (taken, given),
        ):
            yield taken


@dataclass
class Patchings:
    """What came out of two models and of one patched from the other."""

    originals: dict[str, list[Outcome]]
    """SOURCE and TARGET -> its own outcomes."""
    patched: dict[str, dict[Heads, list[Outcome]]]
    """Way -> set -> outcomes."""

    def order(self) -> None:
        """By example id, so that all can be compared pair by pair."""
        for outcomes in (
            *self.originals.values(),
            *(o for w in self.patched.values() for o in w.values()),
        ):
            outcomes.sort(key=_id)


class _Progress:
    """One line a batch, as sce.score prints."""

    def __init__(self, num_examples: int, num_sets: int) -> None:
        self._num_examples, self._num_sets = num_examples, num_sets
        self._done, self._started = 0, time.perf_counter()

    def add(self, count: int) -> None:
        self._done += count
        _log.info(
            "answered %d of %d examples   %d times each   %.0f s",
            self._done,
            self._num_examples,
            self._num_sets,
            time.perf_counter() - self._started,
        )


def _id(outcome: Outcome) -> str:
    return outcome.example.id
