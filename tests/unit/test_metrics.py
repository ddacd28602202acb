"""Answer and citation metrics, by hand and against the published definitions."""

import re
import string
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sce.metrics import (
    citation_f1,
    citation_match,
    citation_precision,
    citation_recall,
    citations,
    exact_match,
    f1,
    metrics_for,
    normalize,
    substring_exact_match,
)


class Published:
    """The definitions of the papers' own scorers, written out."""

    @staticmethod
    def normalize(text: str) -> str:
        """evaluate-v1.1.py of SQuAD, normalize_answer; MuSiQue's metrics/answer.py has the same."""
        kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())

    @classmethod
    def exact_match(cls, prediction: str, answers: tuple[str, ...]) -> float:
        """Both: 1 if one answer is equal to the prediction after normalisation."""
        return max(float(cls.normalize(prediction) == cls.normalize(a)) for a in answers)

    @classmethod
    def f1(cls, prediction: str, answers: tuple[str, ...], *, musique: bool) -> float:
        """Best over answers. Where nothing is left of one side, MuSiQue compares, SQuAD has 0."""
        return max(
            cls._f1(cls.normalize(prediction).split(), cls.normalize(answer).split(), musique)
            for answer in answers
        )

    @staticmethod
    def _f1(prediction: list[str], answer: list[str], musique: bool) -> float:
        if musique and not (prediction and answer):
            return float(prediction == answer)
        shared = sum((Counter(prediction) & Counter(answer)).values())
        if not shared:
            return 0.0
        precision, recall = shared / len(prediction), shared / len(answer)
        return 2 * precision * recall / (precision + recall)

    @staticmethod
    def citations(text: str) -> list[int]:
        """utils_eval.py of Summary of a Haystack, extract_citations."""
        groups = re.findall(r"\[([\d, ]+)\]", text)
        return [int(part.strip()) for g in groups for part in g.split(",") if part.strip()]

    @classmethod
    def citation_scores(cls, text: str, labels: set[int]) -> tuple[float, float, float]:
        """The same, compute_single_sample_scores: precision, recall and F1 over sets."""
        cited = set(cls.citations(text))
        precision = len(cited & labels) / len(cited) if cited else 0
        recall = len(cited & labels) / len(labels) if labels else 0
        total = precision + recall
        return precision, recall, 2 * precision * recall / total if total else 0


@pytest.mark.parametrize(
    ("prediction", "answers", "expected_f1", "expected_match"),
    [
        ("The Eiffel Tower!", ("eiffel tower",), 1.0, 1.0),
        ("tower", ("Eiffel Tower",), 2 / 3, 0.0),
        ("in Rome", ("Paris", "Rome"), 2 / 3, 0.0),
        ("Rome", ("Paris", "Rome"), 1.0, 1.0),
        ("", ("Rome",), 0.0, 0.0),
        ("rome rome", ("Rome",), 2 / 3, 0.0),
        ("the", ("a",), 1.0, 1.0),
        ("", ("the", "Rome"), 1.0, 1.0),
        ("...", ("Rome",), 0.0, 0.0),
        ("New York", ("NYC", "New York City", "York"), 0.8, 0.0),
        ("New York City", ("NYC", "New York City", "York"), 1.0, 1.0),
        ("the city of Rome", ("Rome", "city of Rome"), 1.0, 1.0),
        ("a an the Rome", ("Rome",), 1.0, 1.0),
        ("Theo", ("the o",), 0.0, 0.0),
        ("A.N. Other", ("Other",), 1.0, 1.0),
        ("A-ha", ("ha",), 0.0, 0.0),
        ("A \u2013 ha", ("ha",), 2 / 3, 0.0),
        ("1,000", ("1000",), 1.0, 1.0),
        ("1,000 people", ("1 000",), 0.0, 0.0),
        ("$3.50", ("350",), 1.0, 1.0),
        ("Rome's", ("Romes",), 1.0, 1.0),
        ("Rome\u2019s", ("Romes",), 0.0, 0.0),
        ("“Rome”", ("Rome",), 0.0, 0.0),
        ("“Rome”", ("“rome”",), 1.0, 1.0),
        ("Gustaf Dalen", ("Gustaf Dalén",), 0.5, 0.0),
        ("ÅNGSTRÖM", ("ångström",), 1.0, 1.0),
        ("Rome\xa0\u2003 now\n", ("rome now",), 1.0, 1.0),
        ("no no yes", ("no yes yes",), 2 / 3, 0.0),
        ("北京", ("北京",), 1.0, 1.0),
        ("東 京", ("東京",), 0.0, 0.0),
    ],
)
def test_squad_scores_by_hand(prediction, answers, expected_f1, expected_match):
    assert f1(prediction, answers) == pytest.approx(expected_f1)
    assert exact_match(prediction, answers) == expected_match
    assert Published.f1(prediction, answers, musique=True) == pytest.approx(expected_f1)
    assert Published.exact_match(prediction, answers) == expected_match


words = st.sampled_from(
    "the a an The A. AN rome Rome, rome's \u2019s \u2013 “ ” 1,000 1000 é É . !? \xa0".split(" ")
)
phrases = st.one_of(st.lists(words, max_size=6).map(" ".join), st.text(max_size=12))


@given(phrases, st.lists(phrases, min_size=1, max_size=3).map(tuple))
def test_scores_are_those_of_musique_and_but_for_nothing_left_those_of_squad(prediction, answers):
    assert normalize(prediction) == Published.normalize(prediction)
    assert exact_match(prediction, answers) == Published.exact_match(prediction, answers)
    musique = Published.f1(prediction, answers, musique=True)
    assert f1(prediction, answers) == pytest.approx(musique)
    if normalize(prediction):
        squad = Published.f1(prediction, answers, musique=False)
        assert f1(prediction, answers) == pytest.approx(squad)


def test_without_answers_every_score_is_zero():
    assert f1("Rome", ()) == exact_match("Rome", ()) == 0.0
    assert citation_f1("[1]", ()) == citation_recall("[1]", ()) == 0.0


@pytest.mark.parametrize(
    ("text", "cited", "scores"),
    [
        ("[2, 5]", {2, 5}, (1, 1, 1)),
        ("[2][5]", {2, 5}, (1, 1, 1)),
        ("[ 2 ,5 ]", {2, 5}, (1, 1, 1)),
        ("[5,2]", {2, 5}, (1, 1, 1)),
        ("It is in [2] and, more or less, in [5].", {2, 5}, (1, 1, 1)),
        ("[2, 5, 2][5]", {2, 5}, (1, 1, 1)),
        ("[02, 005]", {2, 5}, (1, 1, 1)),
        ("[[2, 5]]", {2, 5}, (1, 1, 1)),
        ("[2,, 5,]", {2, 5}, (1, 1, 1)),
        ("[2]", {2}, (1, 1 / 2, 2 / 3)),
        ("[2, 5, 7, 11]", {2, 5, 7, 11}, (1 / 2, 1, 2 / 3)),
        ("[2, 7]", {2, 7}, (1 / 2, 1 / 2, 1 / 2)),
        ("[7, 900]", {7, 900}, (0, 0, 0)),
        ("[25]", {25}, (0, 0, 0)),
        ("[0]", {0}, (0, 0, 0)),
        ("[2] [5", {2}, (1, 1 / 2, 2 / 3)),
        ("[2, 5", set(), (0, 0, 0)),
        ("2, 5]", set(), (0, 0, 0)),
        ("2, 5", set(), (0, 0, 0)),
        ("[,]", set(), (0, 0, 0)),
        ("[ ]", set(), (0, 0, 0)),
        ("[]", set(), (0, 0, 0)),
        ("", set(), (0, 0, 0)),
        ("[-2, 5]", set(), (0, 0, 0)),
        ("[2; 5]", set(), (0, 0, 0)),
        ("[2,\n5]", set(), (0, 0, 0)),
        ("[2.0]", set(), (0, 0, 0)),
        ("[Document 2]", set(), (0, 0, 0)),
        ("(2, 5)", set(), (0, 0, 0)),
        ("[²]", set(), (0, 0, 0)),
        ("[\u0662, \u0665]", {2, 5}, (1, 1, 1)),
    ],
)
def test_citations_by_hand(text, cited, scores):
    labels = ("2", "5")
    assert set(Published.citations(text)) == cited
    assert citations(text) == {str(number) for number in cited}
    assert Published.citation_scores(text, {2, 5}) == pytest.approx(scores)
    found = [m(text, labels) for m in (citation_precision, citation_recall, citation_f1)]
    assert found == pytest.approx(scores)
    assert citation_match(text, labels) == float(cited == {2, 5})


@pytest.mark.parametrize(("text", "cited"), [("[2 5]", set()), ("[2 5, 7]", {"7"})])
def test_numbers_without_a_comma_cite_nothing_where_the_published_scorer_fails(text, cited):
    with pytest.raises(ValueError, match="invalid literal"):
        Published.citations(text)
    assert citations(text) == cited


@given(st.text(st.sampled_from("[]], 0125-a"), max_size=24), st.sets(st.integers(0, 25)))
def test_citation_scores_are_those_of_summhay_for_any_text(text, labels):
    try:
        expected = Published.citation_scores(text, labels)
    except ValueError:
        assert re.search(r"\d +\d", text)
        return
    names = [str(label) for label in labels]
    found = [m(text, names) for m in (citation_precision, citation_recall, citation_f1)]
    assert found == pytest.approx(expected)


@given(st.text())
def test_citations_are_found_in_any_text(text):
    assert all(label.isdecimal() for label in citations(text))


def test_normalisation_drops_case_articles_punctuation_and_spaces():
    assert normalize(" The  U.S., a   nation ") == "us nation"


@pytest.mark.parametrize("metric", ["f1", "exact_match", "substring_exact_match"])
def test_metrics_keep_every_example_and_start_afresh(metric):
    kept = metrics_for("mdqa")[metric]
    kept.update("Rome", ("Rome",))
    kept.update("Oslo", ("Rome",))
    assert kept.compute().tolist() == [1.0, 0.0]
    kept.reset()
    kept.update("Rome", ("Rome",))
    assert kept.compute().dtype == torch.float64
    assert kept.compute().flatten().tolist() == [1.0]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("Paris", True),
        ("The capital of France is Paris.", True),
        ("paris!", True),
        ("Parisian", False),
        ("", False),
        ("the city of lights", True),
        ("lights of the city", False),
        ("the", False),  # what normalisation leaves nothing of stands nowhere
    ],
)
def test_an_answer_is_found_where_it_stands_as_whole_words(said, right):
    assert substring_exact_match(said, ["Paris", "city of lights", "the"]) == right
