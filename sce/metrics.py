"""Answer metrics as torchmetrics: token F1 and exact match, best over aliases.

SQuAD's definitions (Rajpurkar et al. 2016, evaluate-v1.1). `compute` returns one value an example,
so that intervals and paired comparisons can be made of them; the metric proper is their mean.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals an answer, else 0."""
    return float(any(normalize(prediction) == normalize(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of word precision and recall, best over the answers, 0..1."""
    return max(
        (_f1(normalize(prediction).split(), normalize(a).split()) for a in answers), default=0.0
    )


def _f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    shared = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * shared / (len(prediction) + len(answer))


class _PerExample(Metric):
    """Keeps one value an example, gathered over ranks."""

    full_state_update = False
    higher_is_better = True
    values: list[Tensor]

    def __init__(self, measure: Callable[[str, Sequence[str]], float], *, sync: bool) -> None:
        super().__init__(sync_on_compute=sync)
        self._measure = measure
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, prediction: str, answers: Sequence[str]) -> None:
        """Add one example."""
        value = self._measure(prediction, answers)
        self.values.append(torch.tensor([value], dtype=torch.float64, device=self.device))

    def compute(self) -> Float[Tensor, " examples"]:
        """Every example's value, 0..1 (torchmetrics drops the dimension of a single one)."""
        if isinstance(self.values, list):
            return torch.cat(self.values) if self.values else torch.zeros(0, dtype=torch.float64)
        return self.values


class TokenF1(_PerExample):
    """Word-level F1."""

    def __init__(self, *, sync: bool = True) -> None:
        super().__init__(f1, sync=sync)


class ExactMatch(_PerExample):
    """Exact match after normalisation."""

    def __init__(self, *, sync: bool = True) -> None:
        super().__init__(exact_match, sync=sync)
