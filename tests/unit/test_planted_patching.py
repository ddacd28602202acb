"""Patching of planted heads: what of the answer comes back, worked out by hand."""

import pytest
import torch
from torch import nn

from planted import COMMA, HEADS, LETTERS, ONE, OPEN, PLANTED_DIM, plant
from sce.data.batch import collate
from sce.decode import decode, prefix_cache
from sce.interventions.patching import Side, patched
from test_planted_knockout import (
    BRIDGED,
    CITED,
    HOPS,
    INTACT,
    INTACT_CITATION,
    LABELLED,
    NOTHING,
    PLACES,
    SETTINGS,
    SPELT,
    WRITER,
    by_hand,
    column_of,
    found,
    heads,
    near,
    numbers,
    side_by_side,
)
from test_scorers import CITATION, QUESTION

NAMES = {"hop_1": HOPS, "hop_2": HOPS, "indirect": WRITER, "insight": WRITER}
# NLL and answer of a model whose head puts out nothing, and of the whole one.
SILENT = {
    "hop_1": (QUESTION, by_hand(QUESTION, [{}] * 4), NOTHING),
    "hop_2": (QUESTION, by_hand(QUESTION, [{}] * 4, BRIDGED), NOTHING),
    "indirect": (QUESTION, by_hand(QUESTION, [{}] * 4), NOTHING),
    "insight": (CITATION, by_hand(CITATION, [{}] * 6), (OPEN, *NOTHING[1:])),
}
WHOLE = {
    "hop_1": (INTACT[HOPS], LETTERS),
    "hop_2": (INTACT[HOPS], LETTERS),
    "indirect": (INTACT[WRITER], LETTERS),
    "insight": (INTACT_CITATION, CITED),
}


def lesioned(names: tuple[str, ...], *silent: str) -> nn.Module:
    """The model with the values of some heads gone: what they write with, W_O, is still there."""
    model = plant(names)
    for layer, head in heads(*silent):
        first = head // 2 * PLANTED_DIM
        with torch.no_grad():
            values = model.model.layers[layer].self_attn.v_proj.weight
            values[first : first + PLANTED_DIM] = 0
    return model


def neighbours(name: str) -> frozenset[tuple[int, int]]:
    """The other heads of its layer."""
    layer, own = HEADS[name].at
    return frozenset((layer, head) for head in range(4) if head != own)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_its_own_head_restores_an_answer_bit_for_bit_and_its_neighbours_nothing(name, place):
    source, target = plant(NAMES[name]), lesioned(NAMES[name], name)
    batch = side_by_side()
    prefixes = prefix_cache(target, batch), prefix_cache(source, batch)
    own, given = prefixes if place == "prefix" else (None, None)
    intact, silent = decode(source, batch, SETTINGS, given), decode(target, batch, SETTINGS, own)
    asked, nll, answer = SILENT[name]
    assert found(silent, asked) == (near(nll), answer)
    assert found(intact, asked) == (near(WHOLE[name][0]), WHOLE[name][1])
    options = {
        "from_column": column_of(place, batch),
        "prefixes": prefixes if place == "prefix" else None,
    }
    # The rest of the two models is the same, so with the head's output all is.
    with patched(Side(target), Side(source), heads(name), **options):
        assert numbers(decode(target, batch, SETTINGS, own)) == numbers(intact)
    with patched(Side(target), Side(source), neighbours(name), **options):
        assert numbers(decode(target, batch, SETTINGS, own)) == numbers(silent)


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("name", NAMES)
def test_its_silence_takes_the_answer_away_and_that_of_its_neighbours_nothing(name, place):
    source, target, batch = lesioned(NAMES[name], name), plant(NAMES[name]), side_by_side()
    column, intact = column_of(place, batch), decode(target, batch, SETTINGS)
    assert found(intact, SILENT[name][0]) == (near(WHOLE[name][0]), WHOLE[name][1])
    with patched(Side(target), Side(source), heads(name), from_column=column):
        silent = decode(target, batch, SETTINGS)
    asked, nll, answer = SILENT[name]
    assert found(silent, asked) == (near(nll), answer)
    with patched(Side(target), Side(source), neighbours(name), from_column=column):
        assert numbers(decode(target, batch, SETTINGS)) == numbers(intact)


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("name", NAMES)
def test_the_decoy_restores_nothing_and_takes_nothing_from_what_others_restore(name, place):
    source, target = plant(NAMES[name]), lesioned(NAMES[name], name)
    batch = side_by_side()
    column, silent = column_of(place, batch), numbers(decode(target, batch, SETTINGS))
    with patched(Side(target), Side(source), heads("decoy"), from_column=column):
        assert numbers(decode(target, batch, SETTINGS)) == silent
    with patched(Side(target), Side(source), heads("decoy", name), from_column=column):
        restored = decode(target, batch, SETTINGS)
    assert numbers(restored) == numbers(decode(source, batch, SETTINGS))


def test_of_two_hops_the_second_carries_the_answer_and_the_first_the_bridge():
    source, target = plant(HOPS), lesioned(HOPS, "hop_1", "hop_2")
    batch = side_by_side()
    for given, written, beside, answer in (
        # Bridges that nobody reads.
        (("hop_1",), [{}] * 4, BRIDGED, NOTHING),
        # The letters, found by bridges that are in the source alone: more of 16 is left to them.
        (("hop_2",), SPELT, (), LETTERS),
        (("hop_1", "hop_2"), SPELT, BRIDGED, LETTERS),
    ):
        with patched(Side(target), Side(source), heads(*given), from_column=batch.num_prompt - 1):
            outcomes = decode(target, batch, SETTINGS)
        assert found(outcomes, QUESTION) == (near(by_hand(QUESTION, written, beside)), answer)


def test_a_second_hop_that_found_nothing_where_it_was_takes_the_answer_away():
    # The target has its bridges, and a second hop that would find by them.
    source, target, batch = lesioned(HOPS, "hop_1"), plant(HOPS), collate([QUESTION])
    with patched(Side(target), Side(source), heads("hop_2"), from_column=batch.num_prompt - 1):
        outcomes = decode(target, batch, SETTINGS)
    assert found(outcomes, QUESTION) == (near(by_hand(QUESTION, [{}] * 4, BRIDGED)), NOTHING)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_head_puts_out_is_written_by_the_target_s_own_w_o(name):
    # What is patched goes into the target's output projection, which is zero where no head was.
    batch = side_by_side()
    source = plant(NAMES[name])
    target = plant([other for other in NAMES[name] if other != name])
    asked, nll, answer = SILENT[name]
    with patched(Side(target), Side(source), heads(name), from_column=batch.num_prompt - 1):
        assert found(decode(target, batch, SETTINGS), asked) == (near(nll), answer)
        # With the source's W_O, and nothing else of the head, it writes all.
        own, given = (m.model.layers[HEADS[name].at[0]].self_attn.o_proj for m in (target, source))
        own.load_state_dict(given.state_dict())
        restored = decode(target, batch, SETTINGS)
    assert numbers(restored) == numbers(decode(source, batch, SETTINGS))


def test_what_a_head_found_is_the_source_s_and_what_it_stands_for_the_target_s():
    # At the comma the source's head looks at the sentence of document 3, whose label the target's
    # W_O does not know: label 1 is written as before, and label 2 is not.
    source, target, batch = plant(["wrong_insight"]), plant(["insight"]), collate([CITATION])
    with patched(Side(target), Side(source), heads("insight"), from_column=batch.num_prompt - 1):
        outcomes = decode(target, batch, SETTINGS)
    nll = by_hand(CITATION, [*LABELLED[:3], {}, {}, {}])
    assert found(outcomes, CITATION) == (near(nll), (OPEN, ONE, COMMA, *NOTHING[3:]))


def test_patched_from_the_second_letter_on_the_first_does_not_come():
    source, target, batch = plant(WRITER), lesioned(WRITER, "indirect"), collate([QUESTION])
    with patched(Side(target), Side(source), heads("indirect"), from_column=batch.num_prompt):
        (outcome,) = decode(target, batch, SETTINGS)
    # With the gold letters before them the others do; in greedy decoding all hang on the first.
    nll = by_hand(QUESTION, [{}, *SPELT[1:]])
    assert numbers([outcome]) == [(near(nll), NOTHING)]
