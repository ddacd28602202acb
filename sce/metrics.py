"""Answer metrics as torchmetrics: token F1 and exact matches, best over aliases, and citations.

SQuAD's definitions for answers (Rajpurkar et al. 2016, evaluate-v1.1; where normalisation leaves
nothing of either side F1 is 1, as in MuSiQue's, and not 0), and for citations those of Summary of a
Haystack (Laban et al. 2024, utils_eval.py). `compute` returns one value an example, so that
intervals and paired comparisons can be made of them; the metric proper is their mean.
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
_CITED = re.compile(r"\[([\d, ]+)\]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals an answer, else 0."""
    return float(any(normalize(prediction) == normalize(answer) for answer in answers))


def substring_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if an answer stands in the prediction as whole words, both normalised, else 0.

    What was retrieved, whatever the form of the reply: SubEM of HELMET (Yen et al. 2024) and, but
    for whole words, best_subspan_em of Lost in the Middle (Liu et al. 2024). An answer of which
    normalisation leaves nothing stands nowhere.
    """
    said = f" {normalize(prediction)} "
    return float(any(f" {normalize(each)} " in said for each in answers if normalize(each)))


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


def cited_characters(text: str) -> list[tuple[str, int, int]]:
    """(number, start, end) of every number in brackets, [2] or [2, 5], in order.

    Numbers with no comma between them, on which SummHay's scorer fails, cite nothing: of [2 5, 7]
    there is 7.
    """
    found = []
    for group in _CITED.finditer(text):
        start = group.start(1)
        for number in group[1].split(","):
            first = start + len(number) - len(number.lstrip())
            if number.strip().isdigit():
                found.append((str(int(number)), first, first + len(number.strip())))
            start += len(number) + 1
    return found


def citations(text: str) -> set[str]:
    """The numbers of the documents that a text cites, as SummHay's scorer finds them."""
    return {number for number, _, _ in cited_characters(text)}


def citation_precision(prediction: str, labels: Sequence[str]) -> float:
    """Share of the cited documents that are to be cited, 0 where none is cited."""
    cited = citations(prediction)
    return len(cited & set(labels)) / len(cited) if cited else 0.0


def citation_recall(prediction: str, labels: Sequence[str]) -> float:
    """Share of the documents to be cited that are."""
    return len(citations(prediction) & set(labels)) / len(set(labels)) if labels else 0.0


def citation_f1(prediction: str, labels: Sequence[str]) -> float:
    """Harmonic mean of citation precision and recall."""
    precision, recall = (m(prediction, labels) for m in (citation_precision, citation_recall))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def citation_match(prediction: str, labels: Sequence[str]) -> float:
    """1 if just the documents to be cited are, else 0."""
    return float(citations(prediction) == set(labels))


Measure = Callable[[str, Sequence[str]], float]
_ANSWER: dict[str, Measure] = {
    "f1": f1,
    "exact_match": exact_match,
    "substring_exact_match": substring_exact_match,
}
_CITATION: dict[str, Measure] = {
    "f1": citation_f1,
    "exact_match": citation_match,
    "citation_precision": citation_precision,
    "citation_recall": citation_recall,
}


class PerExample(Metric):
    """One value an example, gathered over ranks."""

    full_state_update = False
    higher_is_better = True
    values: list[Tensor]

    def __init__(self, measure: Measure, *, sync: bool = True) -> None:
        """Take what measures a prediction against answers or labels, 0..1."""
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


def metrics_for(task: str, *, sync: bool = True) -> dict[str, PerExample]:
    """The metrics of a task by name: f1 and exact_match, and more that differ by task."""
    measures = _CITATION if task == "summhay" else _ANSWER
    return {name: PerExample(measure, sync=sync) for name, measure in measures.items()}
