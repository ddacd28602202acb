"""Knockout of planted heads: what is left of the answer, worked out by hand.

A token of the residual stream is 1 in its own room, and what heads write is beside it. The last
norm makes it 16 long, and lm_head reads the room OUT and what follows a token by itself, so that
logits are known (`by_hand`): all of them are 0 where nothing was written and nothing follows.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
import torch

from planted import (
    CLOSE,
    COMMA,
    FOLLOWED_BY,
    HEADS,
    LETTERS,
    ONE,
    OPEN,
    TWO,
    VOCABULARY,
    plant,
)
from sce.data.batch import Batch, collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, Outcome, decode, prefix_cache
from sce.heads import PREFILL, TEACHER_FORCED
from sce.interventions.knockout import ABLATIONS, head_means, knockout
from test_scorers import CITATION, EVERY, QUESTION, close, table
from test_scorers import SETTINGS as SCORING

SETTINGS = DecodeSettings(max_new_tokens=6, scorers=())
# Each with one way to the letters, one to the citation, and the decoy.
HOPS = ("hop_1", "hop_2", "decoy", "insight")
WRITER = ("indirect", "decoy", "insight")
CITED = (OPEN, ONE, COMMA, TWO, CLOSE)
LABELS = (ONE, TWO)
NOTHING = (0,) * 6
"""The lowest of 32 equally likely tokens, and again after it."""
PLACES = ("all", "answer", "prefix")
"""What is meddled with: all positions, the answer's, and these after a prefix made before."""

Written = Mapping[int, float]


def heads(*names: str) -> frozenset[tuple[int, int]]:
    return frozenset(HEADS[name].at for name in names)


def side_by_side() -> Batch:
    """Both examples, of which the citation is padded."""
    return collate([CITATION, QUESTION])


def column_of(place: str, batch: Batch) -> int | None:
    return None if place == "all" else batch.num_prompt - 1


def numbers(outcomes: Sequence[Outcome]) -> list[tuple[float, tuple[int, ...]]]:
    return [(outcome.nll, outcome.answer_ids) for outcome in outcomes]


def found(outcomes: Sequence[Outcome], example: Encoded) -> tuple[float, tuple[int, ...]]:
    """NLL and greedy answer of one of the examples."""
    return next((o.nll, o.answer_ids) for o in outcomes if o.example is example)


def by_hand(example: Encoded, written: Sequence[Written], beside: Sequence[float] = ()) -> float:
    """NLL of the gold answer, from what heads write at each of its steps.

    Args:
        example: whose answer.
        written: by step, token -> how much of it is written into OUT.
        beside: by step, the squared length of what stands in other rooms than these two.
    """
    nll = 0.0
    steps = [int(example.prompt_ids[-1]), *example.target_ids.tolist(), example.end_id]
    for step, (token, after) in enumerate(pairwise(steps)):
        logits = torch.zeros(VOCABULARY, dtype=torch.float64)
        if token in FOLLOWED_BY:
            logits[FOLLOWED_BY[token]] = 1.0
        squared = 1.0 + (beside[step] if beside else 0.0)
        for told, amount in written[step].items():
            logits[told] += amount
            squared += amount**2
        nll -= float((logits * 16 / squared**0.5).log_softmax(-1)[after])
    return nll


def near(nll: float):
    """Equal but for float32's rounding of a sum of six terms."""
    return pytest.approx(nll, abs=3e-5)


def alike(tokens: Sequence[int], shares: Sequence[float]) -> list[Written]:
    """The same of each token: nobody can tell any more which of them is due."""
    return [dict.fromkeys(tokens, share) for share in shares]


# Step by step: a letter each, and at the last letter nothing, after which the end comes by itself.
SPELT = [*({y: 1.0} for y in LETTERS), {}]
BRIDGED = (1.0, 1.0, 1.0, 0.0)
LABELLED = [{}, {ONE: 1.0}, {}, {TWO: 1.0}, {}, {}]
# How many tokens the steps see: their example's prompt, and one more at each.
SEEN = [1 / n for n in range(18, 22)]
SEEN_CITING = [1 / n for n in range(10, 16)]
INTACT = {HOPS: by_hand(QUESTION, SPELT, BRIDGED), WRITER: by_hand(QUESTION, SPELT)}
INTACT_CITATION = by_hand(CITATION, LABELLED)
KNOCKED_OUT = {
    # No bridge, so the second hop finds nothing; or a bridge, and nobody who reads it.
    ("hop_1", "zero"): (by_hand(QUESTION, [{}] * 4), NOTHING),
    ("hop_2", "zero"): (by_hand(QUESTION, [{}] * 4, BRIDGED), NOTHING),
    # A little of each of three bridges: less than what turns the second hop to token 0.
    ("hop_1", "uniform"): (by_hand(QUESTION, [{}] * 4, [3 * s**2 for s in SEEN]), NOTHING),
    # A letter at three of four steps, so each is a quarter of the mean; the lowest comes first.
    ("hop_2", "mean"): (by_hand(QUESTION, alike(LETTERS, [1 / 4] * 4), BRIDGED), (2,) * 6),
    ("indirect", "zero"): (by_hand(QUESTION, [{}] * 4), NOTHING),
    ("indirect", "mean"): (by_hand(QUESTION, alike(LETTERS, [1 / 4] * 4)), (2,) * 6),
    # Each of the codes is one of the tokens that are seen.
    ("indirect", "uniform"): (by_hand(QUESTION, alike(LETTERS, SEEN)), (2,) * 6),
    # The bracket and the comma come by themselves; the labels do not.
    ("insight", "zero"): (by_hand(CITATION, [{}] * 6), (OPEN, *NOTHING[1:])),
    # A label at two of six steps, one each.
    ("insight", "mean"): (
        by_hand(CITATION, alike(LABELS, [1 / 6] * 6)),
        (OPEN, ONE, COMMA, ONE, COMMA, ONE),
    ),
    ("insight", "uniform"): (
        by_hand(CITATION, alike(LABELS, SEEN_CITING)),
        (OPEN, ONE, COMMA, ONE, COMMA, ONE),
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "mode"), KNOCKED_OUT)
def test_without_its_head_an_answer_is_what_the_ablation_leaves_of_it(name, mode, place):
    names = HOPS if name in HOPS[:2] else WRITER
    model, batch = plant(names), side_by_side()
    asked, other = (CITATION, QUESTION) if name == "insight" else (QUESTION, CITATION)
    prefix = prefix_cache(model, batch) if place == "prefix" else None
    plain = decode(model, batch, SETTINGS, prefix)
    assert found(plain, QUESTION) == (near(INTACT[names]), LETTERS)
    assert found(plain, CITATION) == (near(INTACT_CITATION), CITED)
    means = head_means(model, [collate([asked])], positions="answer")
    column = column_of(place, batch)
    with knockout(model, heads(name), mode=mode, from_column=column, means=means):
        ablated = decode(model, batch, SETTINGS, prefix)
    nll, answer = KNOCKED_OUT[name, mode]
    assert found(ablated, asked) == (near(nll), answer)
    if mode == "zero":  # There the head has found nothing and put out zeros before.
        assert found(ablated, other) == found(plain, other)
    assert numbers(decode(model, batch, SETTINGS, prefix)) == numbers(plain)


@pytest.mark.parametrize("place", ["all", "prefix"])
@pytest.mark.parametrize("mode", ABLATIONS)
@pytest.mark.parametrize(("needed", "names"), [("hop_1", HOPS), ("indirect", WRITER)])
def test_the_decoy_s_absence_changes_nothing_bit_for_bit_beside_a_head_s_or_alone(
    needed, names, mode, place
):
    # Its values are zeros, so are its mean and the mean of what it sees.
    model, batch = plant(names), side_by_side()
    prefix = prefix_cache(model, batch) if place == "prefix" else None
    plain = decode(model, batch, SETTINGS, prefix)
    options = {"from_column": column_of(place, batch), "means": head_means(model, [batch])}
    answers = {}
    for gone in (("decoy",), (needed,), ("decoy", needed)):
        with knockout(model, heads(*gone), mode=mode, **options):
            answers[gone] = numbers(decode(model, batch, SETTINGS, prefix))
    assert answers["decoy",] == numbers(plain)
    assert answers["decoy", needed] == answers[needed,] != numbers(plain)


def test_the_decoy_was_made_to_look_elsewhere_all_the_same():
    # The question's tokens see 16 and 17, of which 13 are gold documents; the null one sees 16.
    model, batch = plant(EVERY), collate([QUESTION])
    (plain,) = decode(model, batch, SCORING)
    with knockout(model, heads("decoy"), mode="uniform"):
        (ablated,) = decode(model, batch, SCORING)
    key = ("query_focused", PREFILL)
    assert plain.scores[key][HEADS["decoy"].at] == pytest.approx(-0.5, abs=1e-5)
    expected = plain.scores[key].clone()
    expected[HEADS["decoy"].at] = (13 / 17 - 13 / 16) / 2
    assert close(ablated.scores[key], expected)
    assert numbers([ablated]) == numbers([plain])


def test_a_head_that_is_knocked_out_still_looks_and_what_needs_it_does_not_find():
    model, batch, key = plant(HOPS), collate([QUESTION]), ("copy", TEACHER_FORCED)
    for gone, copies in (("decoy", 1.0), ("hop_2", 1.0), ("hop_1", 0.0)):
        with knockout(model, heads(gone)):
            (outcome,) = decode(model, batch, SCORING)
        assert torch.equal(outcome.scores[key], table(hop_2=copies))


@pytest.mark.parametrize(
    ("gone", "ways", "bridge"),
    [
        (("copy",), 2, 1),
        (("copy", "decoy", "insight"), 2, 1),
        (("indirect",), 2, 1),
        (("hop_2",), 2, 1),
        (("hop_1",), 2, 0),
        (("hop_1", "hop_2"), 2, 0),
        (("copy", "indirect"), 1, 1),
        (("copy", "hop_1", "indirect"), 0, 0),
        (("copy", "hop_2", "indirect"), 0, 1),
    ],
)
def test_of_three_ways_to_the_answer_each_takes_its_own_share_of_the_logits(gone, ways, bridge):
    written = [{y: float(ways)} for y in LETTERS]
    nll = by_hand(QUESTION, [*written, {}], [bridge, bridge, bridge, 0])
    model, batch = plant(EVERY), side_by_side()
    with knockout(model, heads(*gone), from_column=batch.num_prompt - 1):
        outcomes = decode(model, batch, SETTINGS)
        rows = torch.tensor([[*QUESTION.prompt_ids.tolist(), *LETTERS[:-1]]])
        with torch.no_grad():
            logits = model(input_ids=rows, use_cache=False).logits[0, -3:]
    assert found(outcomes, QUESTION) == (near(nll), LETTERS if ways else NOTHING)
    length = (1 + bridge + ways**2) ** 0.5
    expected = torch.zeros(3, VOCABULARY)
    expected[range(3), list(LETTERS)] = 16 * ways / length
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["hop_1", "hop_2", "indirect"])
def test_knocked_out_from_the_second_letter_on_the_first_still_comes(name):
    names = HOPS if name in HOPS else WRITER
    model, batch = plant(names), collate([QUESTION])
    beside = {"hop_1": (1, 0, 0, 0), "hop_2": BRIDGED, "indirect": ()}[name]
    with knockout(model, heads(name), from_column=batch.num_prompt):
        (outcome,) = decode(model, batch, SETTINGS)
    nll = by_hand(QUESTION, [SPELT[0], {}, {}, {}], beside)
    assert numbers([outcome]) == [(near(nll), (LETTERS[0], *NOTHING[1:]))]
