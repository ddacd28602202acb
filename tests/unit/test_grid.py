"""The synthetic cells: what a needle says, where it stands, and that every draw can be repeated."""

from collections import Counter

import numpy as np
import pytest

from sce.data.build import build_splits
from sce.data.encode import Encoder
from sce.data.expressions import EXPRESSIONS, backgrounds, relations
from sce.data.text import holds_answer
from sce.errors import InputError
from sce.options import CELLS, DataOptions

SYNTHETIC = [cell for cell in CELLS if cell != ("real", "real")]


def train_split(tokenizer, cell, seed=0, count=40, **changes):
    options = DataOptions(concept=cell[0], context=cell[1], num_train=count, **changes)
    return build_splits(options, Encoder(tokenizer), seed, ["train"])["train"]


@pytest.mark.parametrize("cell", SYNTHETIC)
def test_the_needle_alone_holds_the_answer(tokenizer, cell):
    for example in train_split(tokenizer, cell).examples:
        (evidence,) = example.evidence_texts()
        assert example.target in evidence
        gold = example.evidence[0].document
        others = [d for d in example.documents if d.id != gold]
        assert len(others) == 2
        assert not any(holds_answer(f"{d.title} {d.text}", example.answers) for d in others)
        host = next(d for d in example.documents if d.id == gold)
        assert host.text.count(example.target) == 1


@pytest.mark.parametrize("cell", SYNTHETIC)
def test_example_i_depends_on_seed_and_i_alone(tokenizer, cell):
    many, few = train_split(tokenizer, cell, count=12), train_split(tokenizer, cell, count=5)
    assert many.examples[:5] == few.examples
    assert train_split(tokenizer, cell, seed=1, count=5).examples != few.examples


@pytest.mark.parametrize("cell", SYNTHETIC)
def test_questions_and_answers_do_not_repeat(tokenizer, cell):
    split = train_split(tokenizer, cell, count=200)
    assert len({example.question for example in split.examples}) >= 198
    common = Counter(example.target for example in split.examples).most_common(1)[0][1]
    assert common <= 10


@pytest.mark.parametrize("cell", SYNTHETIC)
def test_contexts_fill_a_token_budget(tokenizer, cell):
    split = train_split(tokenizer, cell, count=4, num_documents=None, context_tokens=3000)
    for encoded in split.encoded:
        assert 2400 < len(encoded.prompt_ids) <= 3000


def test_needles_stand_in_every_part_of_the_context(tokenizer):
    split = train_split(tokenizer, ("high", "high"), count=200)
    order = [[d.id for d in e.documents].index("gold") for e in split.examples]
    assert min(Counter(order).values()) > 40


def test_the_bank_has_many_relations_and_phrasings():
    assert len(relations()) >= 40
    assert len({relation.name for relation in relations()}) == len(relations())
    for relation in relations():
        assert len(set(relation.sentences)) >= 8
        assert len(set(relation.questions)) >= 5
        assert relation.subject in backgrounds()
        for sentence in relation.sentences:
            assert sentence.count("{s}") == 1
            assert sentence.count("{o}") == 1


def test_no_five_words_stand_in_more_than_a_twentieth_of_the_needles():
    rng = np.random.default_rng(0)
    counts: Counter[tuple[str, ...]] = Counter()
    for _ in range(1000):
        needle = EXPRESSIONS["high"](rng)
        words = needle.sentence.replace(needle.answer, "O").replace(needle.subject, "S").split()
        counts.update({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    assert counts.most_common(1)[0][1] <= 50


def test_low_concept_is_one_template_a_relation():
    rng = np.random.default_rng(0)
    shapes = {}
    for _ in range(500):
        needle = EXPRESSIONS["low"](rng)
        shape = needle.sentence.replace(needle.subject, "S").replace(needle.answer, "O")
        assert shapes.setdefault(needle.relation, shape) == shape


def test_no_slot_is_left_unfilled(tokenizer):
    for cell in SYNTHETIC:
        for example in train_split(tokenizer, cell, count=100).examples:
            text = " ".join(d.title + d.text for d in example.documents) + example.question
            assert "{" not in text


@pytest.mark.parametrize("cell", [("high", "real"), ("symbolic", "low"), ("real", "high")])
def test_a_pair_that_is_no_cell_is_refused(cell):
    with pytest.raises(InputError, match="there is no cell"):
        DataOptions(concept=cell[0], context=cell[1])


def test_one_of_concept_and_context_implies_the_other():
    assert DataOptions(concept="low").cell("train") == ("low", "low")
    assert DataOptions(context="symbolic").cell("train") == ("symbolic", "symbolic")
    assert DataOptions().cell("train") == ("high", "high")
    assert DataOptions().cell("val") == ("real", "real")
