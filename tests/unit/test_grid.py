"""Every cell of the grid, for every task: what its needles say, where they stand, and repeats."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans import make_splits
from sce.data import expressions
from sce.data.encode import Encoder
from sce.data.entities import entities_of, substitute
from sce.data.haystacks import remainder
from sce.data.recipe import assign
from sce.data.relations import BRIDGES, backgrounds, relations
from sce.data.text import holds_answer
from sce.data_options import DataOptions, MixOptions
from sce.errors import InputError
from sce.options import LOW

TASKS = ("mdqa", "musique", "summhay")
GRID = [(c, x) for c in ("real", "high", *LOW) for x in ("real", "high", "low")]
CELLS = [*GRID, ("symbolic", "symbolic")]
CASES = [(task, *cell) for task in TASKS for cell in CELLS] + [("mdqa", "limited", "real")]
MADE_OF_REAL = [case for case in CASES if case[2] == "real" or case[1] == "real"]
INVENTED = [case for case in CASES if case not in MADE_OF_REAL]
NUM_DOCUMENTS = {"mdqa": 3, "musique": 6, "summhay": 10}


def options(task, concept, context, count=12, **changes):
    values = {"num_documents": NUM_DOCUMENTS[task], "num_train": count, **changes}
    if concept == "limited":
        values["limited"] = "who"
    return DataOptions(task=task, concept=concept, context=context, **values)


@pytest.fixture(scope="session")
def made(tokenizer):
    """Twelve training examples of a cell, made once for all tests."""
    kept = {}

    def make(*case):
        if case not in kept:
            kept[case] = make_splits(options(*case), Encoder(tokenizer), 0, ["train"])["train"]
        return kept[case]

    return make


@pytest.mark.parametrize("case", CASES)
def test_the_answer_follows_from_the_evidence_and_nothing_that_was_added_holds_it(made, case):
    task, concept, context = case
    for example in made(*case).examples:
        evidence = example.evidence_texts()
        if task == "summhay":
            assert set(example.answers) == example.gold_ids
            assert len(example.answers) >= 1
        else:
            assert example.target in evidence[-1]
        hops = example.meta.get("hop_answers", ())[: len(evidence)] if task == "musique" else ()
        for hop, answer in zip(evidence, hops, strict=False):
            assert answer in hop
        added = [d for d in example.documents if d.id.startswith("pool-")]
        assert added or context in ("real", "symbolic")  # distractors of their own may be enough
        for document in added:
            assert not holds_answer(f"{document.title} {document.text}", example.secrets)
        if concept not in ("real", "limited") and concept != "low_entity":
            for document in example.documents:
                own = [s for s in example.evidence if s.document == document.id]
                if own and task != "musique":
                    assert not holds_answer(remainder(document, own), example.secrets)


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_s_tokens_decode_to_the_needles(made, tokenizer, case):
    for example, encoded in zip(made(*case).examples, made(*case).encoded, strict=True):
        for number, needle in enumerate(example.evidence_texts()):
            positions = encoded.evidence[encoded.needles == number]
            # Punctuation inside a needle is no evidence, but stands between tokens that are.
            found = tokenizer.decode(encoded.prompt_ids[positions[0] : positions[-1] + 1])
            assert stripped(found) == stripped(needle)


def stripped(text: str) -> str:
    return text.strip(" \n\t.,;:!?\"'()[]`-\u201c\u201d\u2018\u2019\u2013\u2014")


@pytest.mark.parametrize("case", CASES)
def test_example_i_depends_on_seed_and_i_alone(made, tokenizer, case):
    few = make_splits(options(*case, count=3), Encoder(tokenizer), 0, ["train"])["train"]
    assert few.examples == made(*case).examples[:3]
    assert few.recipe.example(2) == few.examples[2]
    other = make_splits(options(*case, count=3), Encoder(tokenizer), 1, ["train"])["train"]
    assert other.examples != few.examples


@pytest.mark.parametrize("case", CASES)
def test_contexts_fill_a_token_budget_to_within_a_document(tokenizer, case):
    changes = {"num_documents": None, "context_tokens": 9000 if case[0] == "summhay" else 4000}
    encoder = Encoder(tokenizer)
    split = make_splits(options(*case, count=2, **changes), encoder, 0, ["train"])["train"]
    for example, encoded in zip(split.examples, split.encoded, strict=True):
        longest = max(
            encoder.num_document_tokens(d, len(example.documents), case[0])
            for d in example.documents
        )
        assert changes["context_tokens"] - longest <= len(encoded.prompt_ids)
        assert len(encoded.prompt_ids) <= changes["context_tokens"]


@pytest.mark.parametrize("case", MADE_OF_REAL)
def test_cells_made_of_real_examples_keep_their_ids(made, case):
    task, concept, context = case
    real = [e.id for e in made(task, "real", "real").examples]
    ids = [e.id for e in made(*case).examples]
    if concept == "limited":
        assert all(name.startswith("sample-train-") for name in ids)
    elif concept == "low_entity" and context != "real":
        assert ids != real
    else:
        assert ids == real


@pytest.mark.parametrize("context", ["high", "low"])
def test_real_entities_can_be_replaced_in_every_context(tokenizer, context):
    chosen = options("mdqa", "low_entity", context, entity_base="real")
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    assert all(e.id.startswith("sample-train-") for e in split.examples)


@pytest.mark.parametrize("task", TASKS)
def test_symbols_stand_for_entities_throughout(made, task):
    pairs = zip(
        made(task, "real", "real").examples, made(task, "low_entity", "real").examples, strict=True
    )
    for real, symbolic in pairs:
        assert len(real.evidence) == len(symbolic.evidence)
        if task == "summhay":
            assert sorted(real.answers) == sorted(symbolic.answers)
            continue
        gold = [d for d in symbolic.documents if d.id in symbolic.gold_ids]
        for document in gold:
            assert not holds_answer(f"{document.title} {document.text}", real.answers)
        assert not holds_answer(symbolic.question, real.answers)
        assert symbolic.target.isupper()


@pytest.mark.parametrize("case", INVENTED)
def test_questions_and_answers_do_not_repeat(tokenizer, case):
    split = make_splits(options(*case, count=200), Encoder(tokenizer), 0, ["train"])["train"]
    assert len({example.question for example in split.examples}) >= 198
    if case[0] != "summhay":
        common = Counter(example.target for example in split.examples).most_common(1)[0][1]
        assert common <= 10


def test_chains_are_as_long_as_asked_and_linked():
    for style in expressions.STYLES.values():
        for seed in range(60):
            rng = np.random.default_rng(seed)
            count = 1 + seed % 4
            problem = expressions.chain(style, count, rng)
            assert len(problem.needles) == count
            answers = problem.meta["hop_answers"]
            for number, needle in enumerate(problem.needles):
                assert answers[number] in needle.sentences[0]
                if number:
                    assert answers[number - 1].lower() in needle.sentences[0].lower()
            assert not any(holds_answer(problem.question, (answer,)) for answer in answers)


def test_cited_documents_say_it_each_in_its_own_words():
    rng = np.random.default_rng(0)
    problem = expressions.citation(expressions.STYLES["high"], 6, rng)
    sentences = [needle.sentences[0] for needle in problem.needles]
    assert len(set(sentences)) == 6
    assert not any(sentence in problem.question for sentence in sentences)
    assert problem.decoys


def test_needles_stand_in_every_part_of_the_context(tokenizer):
    chosen = options("mdqa", "high", "high", count=200)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    order = [[d.id for d in e.documents].index("gold") for e in split.examples]
    assert min(Counter(order).values()) > 40


@pytest.mark.parametrize(("depth", "expected"), [(0.0, 0), (1.0, 4), (0.5, 2)])
def test_a_fixed_depth_is_kept(tokenizer, depth, expected):
    chosen = options("mdqa", "high", "high", count=5, num_documents=5, depth=depth)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    assert {[d.id for d in e.documents].index("gold") for e in split.examples} == {expected}


def test_a_grid_of_depths_is_taken_in_turn(tokenizer):
    chosen = options("mdqa", "low", "low", count=6, num_documents=5, depth=[0, 0.5, 1])
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    found = [[d.id for d in e.documents].index("gold") for e in split.examples]
    assert found == [0, 2, 4, 0, 2, 4]


@pytest.mark.parametrize("task", TASKS)
def test_depths_are_uniform(tokenizer, task):
    from scipy.stats import chisquare

    chosen = options(task, "symbolic", "symbolic", count=600, num_documents=10)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    counts = np.zeros(10)
    for example in split.examples:
        (place, *_) = (
            n for n, d in enumerate(example.documents) if d.id == example.evidence[0].document
        )
        counts[place] += 1
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("cell", [("real", "real"), ("high", "high"), ("low", "low")])
def test_needles_are_uniform_over_the_documents_tokens(tokenizer, cell):
    from scipy.stats import chisquare

    count = 240 if cell[0] == "real" else 400
    encoder = Encoder(tokenizer)
    chosen = options("mdqa", *cell, count=count, num_documents=20)
    split = make_splits(chosen, encoder, 0, ["train"])["train"]
    head = len(tokenizer(encoder.prompt(split.examples[0]).split("Document [1]")[0])["input_ids"])
    counts = np.zeros(8)
    for example, encoded in zip(split.examples, split.encoded, strict=True):
        tail = len(tokenizer(f"Question: {example.question}")["input_ids"]) + 8
        middle = (encoded.evidence[0] + encoded.evidence[-1]) / 2 - head
        counts[min(7, int(8 * middle / (len(encoded.prompt_ids) - head - tail)))] += 1
    assert chisquare(counts).pvalue > 0.001


def test_the_bank_has_many_relations_and_phrasings():
    assert len(relations()) >= 40
    assert len({relation.name for relation in relations()}) == len(relations())
    for relation in relations():
        assert len(set(relation.sentences)) >= 8
        assert len(set(relation.questions)) >= 5
        assert len(set(relation.phrases)) >= 5
        assert len(set(relation.statements)) >= 3
        assert relation.subject in backgrounds()
        for sentence in (*relation.sentences, *relation.statements):
            assert sentence.count("{s}") == 1
            assert sentence.count("{o}") == 1
        for phrase in relation.phrases:
            assert phrase.count("{s}") == 1
    assert {kind for kinds in BRIDGES.values() for kind in kinds} <= backgrounds().keys()
    assert all(len(set(sentences)) >= 80 for sentences in backgrounds().values())


def test_no_five_words_stand_in_more_than_a_twentieth_of_the_needles():
    rng = np.random.default_rng(0)
    counts: Counter[tuple[str, ...]] = Counter()
    for _ in range(1000):
        problem = expressions.single(expressions.STYLES["high"], 1, rng)
        sentence = problem.needles[0].sentences[0]
        for name in (problem.answers[0], problem.needles[0].title):
            sentence = sentence.replace(name, "X")
        words = sentence.split()
        counts.update({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    assert counts.most_common(1)[0][1] <= 50


@pytest.mark.parametrize("name", ["low", "low_template"])
def test_a_template_is_the_one_wording_of_its_relation(name):
    rng = np.random.default_rng(0)
    shapes = {}
    for _ in range(500):
        problem = expressions.single(expressions.STYLES[name], 1, rng)
        needle = problem.needles[0]
        shape = needle.sentences[0].replace(problem.answers[0], "O")
        shape = shape.replace(needle.title, "S").replace("the ", "").replace("The ", "")
        assert shapes.setdefault(problem.meta["relation"], shape) == shape


@pytest.mark.parametrize("case", INVENTED)
def test_no_slot_is_left_unfilled(made, case):
    for example in made(*case).examples:
        text = " ".join(d.title + d.text for d in example.documents) + example.question
        assert "{" not in text


@pytest.mark.parametrize(
    ("task", "cell", "reason"),
    [
        ("mdqa", ("symbolic", "low"), "keys among keys"),
        ("mdqa", ("high", "symbolic"), "keys among keys"),
        ("mdqa", ("limited", "low"), "whose context is real"),
        ("musique", ("limited", "real"), "no rule for"),
        ("needle", ("high", "high"), "one sentence in a real text"),
    ],
)
def test_a_pair_that_is_no_cell_is_refused_with_the_reason(task, cell, reason):
    with pytest.raises(InputError, match=reason):
        limited = "who" if "limited" in cell else None
        DataOptions(task=task, concept=cell[0], context=cell[1], limited=limited)


def test_limited_needs_a_relation_and_keeps_its_questions_alone(made):
    with pytest.raises(InputError, match=r"needs data\.limited"):
        DataOptions(concept="limited")
    for example in made("mdqa", "limited", "real").examples:
        assert "who" in example.question


def test_one_of_concept_and_context_implies_the_other():
    assert DataOptions(concept="low").cell("train") == ("low", "low")
    assert DataOptions(concept="low_entity").cell("train") == ("low_entity", "low")
    assert DataOptions(concept="limited", limited="who").cell("train") == ("limited", "real")
    assert DataOptions(context="symbolic").cell("train") == ("symbolic", "symbolic")
    assert DataOptions().cell("train") == ("high", "high")
    assert DataOptions().cell("val") == ("real", "real")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 300), st.integers(0, 99))
def test_mixtures_are_exact_at_every_length(weights, count, seed):
    order = assign(weights, count, seed)
    assert order == assign(weights, count + 7, seed)[:count]
    shares = np.asarray(weights) / sum(weights)
    for length in range(count + 1):
        wanted = shares * length
        assert np.all(np.abs(np.bincount(order[:length], minlength=len(weights)) - wanted) < 2)
    whole = count // sum(weights) * sum(weights)
    exact = np.bincount(order[:whole], minlength=len(weights))
    assert exact.tolist() == [w * (whole // sum(weights)) for w in weights]


def test_a_mixture_holds_its_cells_and_no_question_twice(tokenizer):
    mix = [MixOptions("real", None, 0.1), MixOptions("low", "low", 0.9)]
    chosen = DataOptions(mix=mix, num_train=40)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    real = [e for e in split.examples if e.id.startswith("sample-train")]
    assert split.cell == ("mix", "mix")
    assert len(real) == 4
    assert len({e.id for e in split.examples}) == 40
    alone = make_splits(options("mdqa", "real", "real", 40), Encoder(tokenizer), 0, ["train"])
    assert all(example in alone["train"].examples for example in real)
    assert chosen.mix_text == "0.1 real/real + 0.9 low/low"


def test_entities_are_runs_of_capitalised_words_and_numbers():
    sentence = "In 1901 the Nobel Prize in Physics went to Wilhelm Röntgen's team of 3,141 people."
    assert entities_of(sentence) == [
        "Nobel Prize",
        "Physics",
        "Wilhelm Röntgen",
        "1901",
        "3,141",
    ]
    assert entities_of("Trains of the Swedish Railway cost 5 crowns.") == ["Swedish Railway", "5"]


def test_a_surname_alone_is_the_same_person():
    symbols = {"Ada Lovelace": "A1", "Lovelace": "A1", "London": "B2"}
    assert substitute("Ada Lovelace met LOVELACE in london.", symbols) == "A1 met A1 in B2."
    assert substitute("Londoner", symbols) == "Londoner"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limited": "who"}, "changes nothing without data.concept=limited"),
        ({"entity_base": "real"}, "changes nothing without data.concept=low_entity"),
        ({"haystack": ["book.txt"]}, "for data=needle alone"),
        ({"lengths": [100]}, "for data=needle alone"),
        ({"writer": "llm"}, "go together"),
        ({"writer": "llm", "written": "w.jsonl", "concept": "low"}, "without data.concept=high"),
        ({"depth": 1.5}, "data.depth must be"),
        ({"depth": [0, "x"]}, "data.depth must be"),
        ({"depth": []}, "data.depth must be"),
        ({"limited": "why", "concept": "limited"}, "choose from who, when, where"),
        ({"num_train": 0}, "data.num_train must be >= 1"),
    ],
)
def test_an_option_that_would_do_nothing_or_is_wrong_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        DataOptions(**values)


def test_documents_written_by_a_language_model_are_trained_on(tokenizer, tmp_path):
    written = make_splits(options("mdqa", "high", "high", 20), Encoder(tokenizer), 5, ["train"])
    file = tmp_path / "written.jsonl"
    rows = []
    for n, example in enumerate(written["train"].examples):
        gold = tuple(d for d in example.documents if d.id in example.gold_ids)
        rows.append(replace(example, id=f"written-{n}", documents=gold).to_json())
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for context in ("high", "low", "real"):
        chosen = options("mdqa", "high", context, 10, writer="llm", written=str(file))
        split = make_splits(chosen, Encoder(tokenizer), 0, ["train", "val"])
        for example in split["train"].examples:
            (row,) = (row for row in rows if row["question"] == example.question)
            assert example.answers == tuple(row["answers"])
            assert len(example.documents) == 3
        assert len({e.question for e in split["train"].examples}) == 10
        assert split["val"].cell == ("real", "real")
    with pytest.raises(InputError, match="20 questions for this cell"):
        make_splits(replace(chosen, num_train=21), Encoder(tokenizer), 0, ["train"])


def test_limited_questions_can_be_a_small_part_of_a_mixture(tokenizer):
    mix = [MixOptions("limited", None, 0.1), MixOptions("low", "low", 0.9)]
    chosen = DataOptions(mix=mix, limited="who", num_train=200)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    assert len(split.recipe) == 200
    assert len({split.recipe.example(n).id for n in range(200)}) == 200
    with pytest.raises(InputError, match="questions for this cell"):
        make_splits(replace(chosen, num_train=2000), Encoder(tokenizer), 0, ["train"])


def test_a_list_of_depths_is_taken_in_turn_by_each_part_of_a_mixture(tokenizer):
    mix = [MixOptions("real"), MixOptions("low", "low")]
    chosen = DataOptions(mix=mix, num_train=24, num_documents=5, depth=[0, 1])
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    places = Counter()
    for example in split.examples:
        (place,) = (n for n, d in enumerate(example.documents) if d.id in example.gold_ids)
        places[example.id.startswith("sample"), place] += 1
    assert places == {(True, 0): 6, (True, 4): 6, (False, 0): 6, (False, 4): 6}


def test_documents_that_we_put_together_are_shuffled_whatever_the_file_s_order(tokenizer):
    chosen = options("mdqa", "high", "high", 20, shuffle_documents=False)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    assert len({[d.id for d in e.documents].index("gold") for e in split.examples}) == 3


@pytest.mark.parametrize("context", ["real", "high", "low"])
def test_own_distractors_differ_from_example_to_example(tokenizer, context):
    chosen = options("summhay", "real", context, 15, num_documents=9)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    others = {d.id for e in split.examples for d in e.documents if d.id not in e.gold_ids}
    assert len(others) > (20 if context == "real" else 5)


@pytest.mark.parametrize("task", ["musique", "summhay"])
def test_symbols_that_come_twice_are_not_the_answer_alone(tokenizer, task):
    chosen = options(task, "symbolic", "symbolic", 10, num_documents=20)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    for example in split.examples:
        text = " ".join(d.text for d in example.documents)
        counts = Counter(text.replace(":", " ").replace(",", " ").split())
        needed = {w for e in example.evidence_texts() for w in e.replace(":", "").split()}
        assert {word for word, count in counts.items() if count > 1} - needed


def test_what_a_chain_ends_in_is_asked_of_other_documents_too(tokenizer):
    chosen = options("musique", "high", "high", 60, num_documents=12)
    split = make_splits(chosen, Encoder(tokenizer), 0, ["train"])["train"]
    last = Counter(e.meta["relations"][-1] for e in split.examples)
    assert len(last) >= 10
    assert last.most_common(1)[0][1] <= 15
    for example in split.examples:
        assert "'s" not in example.question.replace(f"{first_name(example)}'s", "")


def first_name(example) -> str:
    span = example.evidence[0]
    return next(d.title for d in example.documents if d.id == span.document)


def test_the_number_of_documents_is_a_few_unless_a_number_of_tokens_is_given():
    assert DataOptions().num_documents == 3
    assert DataOptions(task="summhay").num_documents == 10
    assert DataOptions(context_tokens=32_768).num_documents is None
    assert DataOptions(context_tokens=32_768, num_documents=4).num_documents == 4
    assert DataOptions(num_documents=None).num_documents is None
    for wrong in ("many", 2.5, True):
        with pytest.raises(InputError, match=r"data\.num_documents must be"):
            DataOptions(num_documents=wrong)
