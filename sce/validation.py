"""What one validation found, for callbacks to read: answers, and scores of every head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sce.data.encode import Encoded
from sce.stats import bootstrap_ratio, mean_scores


@dataclass(frozen=True)
class Place:
    """Where an example's evidence stands."""

    id: str
    depth: float
    """Share of the prompt before the first evidence token, 0..1."""
    length: int
    """Prompt tokens."""


@dataclass(frozen=True)
class Answer:
    """What a model said to an example, as the ranks exchange it."""

    place: Place
    text: str
    answers: tuple[str, ...]
    """The right ones."""
    nll: float
    """Of the gold answer, summed over its `num_labels` tokens, in nats."""
    num_labels: int


@dataclass(frozen=True)
class Prediction:
    """One validation example's answer."""

    id: str
    text: str
    f1: float
    exact_match: float
    more: Mapping[str, float] = field(default_factory=dict)
    """Further metrics of the task, by name."""
    place: Place | None = None
    nll: float | None = None
    """Of the gold answer, summed over its `num_labels` tokens, in nats."""
    num_labels: int | None = None


@dataclass(frozen=True)
class Validation:
    """What one validation found, the same on every rank; read it in `on_validation_end`."""

    step: int
    """Optimiser steps taken."""
    predictions: tuple[Prediction, ...]
    answer_nll: float
    """Mean over gold answer tokens (end of turn included) of the validation split, in nats."""
    reference: tuple[Place, ...]
    """The examples that heads were scored on."""
    scores: Mapping[tuple[str, str], np.ndarray]
    """(scorer, mode) -> [reference examples, layers, heads], in the order of
    `reference`; an example that a scorer did not keep is NaN throughout."""

    def mean_scores(self, scorer: str, mode: str) -> Float[np.ndarray, "layers heads"]:
        """The mean over the examples that the scorer kept."""
        return mean_scores(self.scores[scorer, mode])

    @property
    def f1(self) -> np.ndarray:
        """F1 of every validation example."""
        return np.array([prediction.f1 for prediction in self.predictions])

    @property
    def reference_depths(self) -> Float[np.ndarray, " examples"]:
        """Depth of each example that heads were scored on."""
        return np.array([place.depth for place in self.reference], dtype=np.float64)

    @property
    def reference_lengths(self) -> Int[np.ndarray, " examples"]:
        """Prompt tokens of each example that heads were scored on."""
        return np.array([place.length for place in self.reference], dtype=np.int64)

    @property
    def val_depths(self) -> Float[np.ndarray, " examples"]:
        """Depth of each validation example, in the order of `predictions`."""
        return np.array([p.place.depth for p in self.predictions if p.place], dtype=np.float64)

    @property
    def val_lengths(self) -> Int[np.ndarray, " examples"]:
        """Prompt tokens of each validation example, in the order of `predictions`."""
        return np.array([p.place.length for p in self.predictions if p.place], dtype=np.int64)


def place(example: Encoded) -> Place:
    """Where an example's evidence stands."""
    return Place(example.id, example.depth, len(example.prompt_ids))


def answer_nll(answers: Sequence[Answer]) -> dict[str, float | None]:
    """`answer_nll`, the mean over the gold tokens of all answers, in nats, and its 95% bounds.

    They are of a bootstrap over examples, a token's weight the same throughout: None for fewer than
    2 examples or a likelihood that is not finite. The mean of no answers is 0.
    """
    nll, num_labels = [a.nll for a in answers], [a.num_labels for a in answers]
    low, high = bootstrap_ratio(nll, num_labels, seed=0) or (None, None)
    mean = sum(nll) / max(1, sum(num_labels))
    return {"answer_nll": mean, "answer_nll_low": low, "answer_nll_high": high}


def measured(metrics: Mapping[str, Any], answers: Sequence[Answer]) -> tuple[Prediction, ...]:
    """Every metric of every answer; the metrics are left holding just these answers."""
    columns = {}
    for name, metric in metrics.items():
        metric.reset()
        for answer in answers:
            metric.update(answer.text, answer.answers)
        columns[name] = metric.compute().flatten().tolist()
    f1, exact = columns.pop("f1"), columns.pop("exact_match")
    more = [{name: column[n] for name, column in columns.items()} for n in range(len(answers))]
    return tuple(
        Prediction(a.place.id, a.text, f1[n], exact[n], more[n], a.place, a.nll, a.num_labels)
        for n, a in enumerate(answers)
    )
