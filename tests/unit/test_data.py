"""Reading, evidence, composition and splitting of questions."""

import gzip
import json
import re
from itertools import islice

import numpy as np
import pytest

from plans import make_splits
from sce.data.compose import Limits, Order, compose
from sce.data.encode import Encoder
from sce.data.example import Document, Example, Span
from sce.data.haystacks import haystack
from sce.data.mdqa import from_nq
from sce.data.pools import PaddingPool, RealPool, WrittenPool
from sce.data.questions import SAMPLE, real_questions
from sce.data.sources import read_questions
from sce.data.splits import check_disjoint, gold_documents, split_by_document
from sce.data.text import holds_answer, sentence_spans
from sce.data_options import SPLITS, DataOptions, SplitOptions
from sce.errors import InputError


def nq_row(text="Ada met Bo. Bo was born in Rome. He left Rome early.", answers=("Rome",), **more):
    return {
        "question": "where was bo born",
        "answers": list(answers),
        "ctxs": [
            {"title": "Bo", "text": text, "isgold": True, "hasanswer": True},
            {"title": "Cy", "text": "Cy is a town.", "isgold": False, "hasanswer": False},
        ],
        **more,
    }


def write_jsonl(file, rows):
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return str(file)


def test_evidence_is_every_sentence_with_the_answer_when_the_annotation_does_not_say():
    example = from_nq(nq_row(), "x")
    assert example.evidence_texts() == ["Bo was born in Rome.", "He left Rome early."]


def test_the_annotated_long_answer_narrows_the_evidence():
    row = nq_row(
        nq_annotated_gold={"short_answers": ["Rome"], "long_answer": "Bo was born in Rome."}
    )
    assert from_nq(row, "x").evidence_texts() == ["Bo was born in Rome."]


def test_the_annotated_short_answer_narrows_the_aliases():
    text = "The Eternal City is old. Bo was born in Rome."
    row = nq_row(text, ("the Eternal City", "Eternal City", "Rome"))
    row["nq_annotated_gold"] = {"short_answers": ["Rome"]}
    example = from_nq(row, "x")
    assert example.evidence_texts() == ["Bo was born in Rome."]
    assert example.target == "Rome"


def test_a_part_of_a_word_is_no_answer_where_the_word_itself_stands():
    example = from_nq(nq_row("A Roman met Bo. Bo was born in Roma.", ("Roma",)), "x")
    assert example.evidence_texts() == ["Bo was born in Roma."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["Paris"]}, "none of the answers"),
        ({"ctxs": [{"title": "", "text": "x", "isgold": False}]}, "no document is marked isgold"),
        ({"ctxs": 3}, "not a row of the Natural Questions format"),
        ({"question": " "}, "the question is empty"),
        ({"answers": "Rome"}, "answers must be a list"),
        ({"answers": []}, "answers must be a list"),
        ({"answers": ["Rome", " "]}, "answers must be texts and not blank"),
        ({"nq_annotated_gold": ["Rome"]}, "nq_annotated_gold is not an object"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, change, message):
    path = write_jsonl(tmp_path / "q.jsonl", [nq_row(), {**nq_row(), **change}])
    with pytest.raises(InputError, match=message) as error:
        read_questions(path, "nq")
    assert "q.jsonl:2" in str(error.value)


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_rows_are_read_plain_and_compressed_and_the_format_is_guessed(tmp_path, name):
    path = write_jsonl(tmp_path / name, [nq_row(), nq_row(id="own")])
    assert [example.id for example in read_questions(path)] == ["nq-0", "own"]


def test_example_jsonl_comes_back_as_it_went_out(tmp_path):
    example = from_nq(nq_row(), "x")
    path = write_jsonl(tmp_path / "e.jsonl", [example.to_json()])
    assert read_questions(path) == [example]


def test_hugging_face_datasets_are_read_from_a_folder_and_from_parquet(tmp_path):
    import datasets

    rows = [{**nq_row(), "id": str(n)} for n in range(2)]
    dataset = datasets.Dataset.from_list(rows)
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "q.parquet"))
    expected = [from_nq(row, "") for row in rows]
    assert read_questions(str(tmp_path / "saved")) == expected
    assert read_questions(str(tmp_path / "q.parquet")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "q.jsonl:1: not JSON"),
        ("[1]", "q.jsonl:1: not a JSON object"),
        ('{"a": 1}', "q.jsonl:1: no known format"),
        ("", "no questions"),
    ],
)
def test_an_unreadable_file_is_one_clear_line(tmp_path, content, message):
    file = tmp_path / "q.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_questions(str(file))


def test_a_broken_gzip_file_is_named(tmp_path):
    file = tmp_path / "q.jsonl.gz"
    file.write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"q\.jsonl\.gz:1: cannot be read"):
        read_questions(str(file))


def test_two_rows_with_one_id_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [nq_row(id="a"), nq_row(id="a")])
    with pytest.raises(InputError, match="id a stands twice"):
        read_questions(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evidence": [{"document": "d0", "start": 0, "end": 999}]}, "outside document"),
        ({"evidence": [{"document": "d9", "start": 0, "end": 3}]}, "which it lacks"),
        ({"evidence": []}, "no evidence"),
        ({"answers": ["Paris"]}, "none of its answers"),
        ({"documents": "x"}, "malformed"),
        ({"task": "chess"}, "task 'chess'; known: mdqa"),
        ({"answers": "Rome"}, "answers must be a list"),
    ],
)
def test_a_wrong_example_is_refused(change, message):
    row = {
        "id": "a",
        "task": "mdqa",
        "documents": [{"id": "d0", "title": "", "text": "In Rome."}],
        "question": "where",
        "answers": ["Rome"],
        "evidence": [{"document": "d0", "start": 0, "end": 8}],
    }
    assert Example.from_json(row).target == "Rome"
    with pytest.raises(InputError, match=message):
        Example.from_json({**row, **change})


def test_sentences_keep_abbreviations_together_and_cover_the_text():
    text = "Dr. Smith went to St. Louis in 1901.  He won. Then he left."
    spans = sentence_spans(text)
    assert [text[a:b] for a, b in spans] == [
        "Dr. Smith went to St. Louis in 1901.",
        "He won.",
        "Then he left.",
    ]


def test_an_answer_is_found_at_word_boundaries_whatever_its_case():
    assert holds_answer("He went to ROME, then home.", ("Rome",))
    assert not holds_answer("He is Roman.", ("Rome",))
    assert not holds_answer("Anything", ("...",))


def make(number: int, text: str | None = None, title: str | None = None) -> Example:
    text = text or f"The tower number {number} is {number * 7 + 100} metres high."
    document = Document(f"q{number}:d0", title or f"Tower {number}", text)
    return Example(
        id=f"q{number}",
        task="mdqa",
        documents=(document,),
        question=f"how high is tower number {number}",
        answers=(str(number * 7 + 100),),
        evidence=(Span(document.id, 0, len(text)),),
    )


def test_splitting_keeps_documents_titles_and_questions_together():
    examples = [make(n, title=f"Tower {n // 3}") for n in range(60)]
    splits = split_by_document(examples, {"train": 0.6, "val": 0.2, "reference": 0.2}, seed=0)
    check_disjoint(splits)
    sizes = {name: len(split) for name, split in splits.items()}
    assert sum(sizes.values()) == 60
    assert sizes == {"train": 36, "val": 12, "reference": 12}
    again = split_by_document(examples, {"train": 0.6, "val": 0.2, "reference": 0.2}, seed=0)
    assert again == splits


def test_splits_that_share_a_document_are_refused():
    with pytest.raises(
        InputError, match=r"data\.train and data\.val share 3 .* document 'Tower 1'"
    ):
        check_disjoint({"train": [make(1)], "val": [make(2, text=make(1).documents[0].text)]})
    leaky = make(3).with_documents((*make(3).documents, make(4).documents[0]))
    with pytest.raises(InputError, match="share"):
        check_disjoint({"train": [leaky], "val": [make(4)]})


@pytest.mark.parametrize("method", ["random", "bm25"])
def test_real_distractors_are_others_documents_and_never_hold_the_answer(tokenizer, method):
    examples = [make(n) for n in range(30)]
    holder = Document("h", "Tower 99", "How high is tower number 3? It is 121 metres high.")
    pool = [holder, *(d for e in examples for d in gold_documents(e))]
    rng = np.random.default_rng(0)
    extra = RealPool(pool, method).distractors(examples[3].question, rng)
    composed = compose(examples[3], extra, Limits(8, None), Encoder(tokenizer), Order(rng))
    texts = [document.text for document in composed.documents]
    assert len(set(texts)) == 8
    assert holder.text not in texts
    assert composed.evidence_texts() == examples[3].evidence_texts()


def test_a_question_s_own_distractor_that_holds_the_answer_is_passed_over(tokenizer):
    row = nq_row()
    row["ctxs"].append({"title": "Dy", "text": "Dy lies near Rome.", "isgold": False})
    example = from_nq(row, "x")
    composed = compose(example, iter(()), Limits(None, None), Encoder(tokenizer), Order(None))
    assert [document.title for document in composed.documents] == ["Bo", "Cy"]
    assert composed.meta == {"own_drops": 1}
    again = compose(composed, iter(()), Limits(None, None), Encoder(tokenizer), Order(None))
    assert again.meta == {}


def test_bm25_ties_are_broken_by_the_drawn_order_not_the_file_s():
    pool = [Document(str(n), "", f"Nothing number {n}.") for n in range(50)]
    haystack, example = RealPool(pool, "bm25"), from_nq(nq_row(), "x")
    firsts = {
        next(haystack.distractors(example.question, np.random.default_rng(seed))).text
        for seed in range(9)
    }
    assert len(firsts) > 3


def test_bm25_puts_the_document_that_resembles_the_question_first():
    pool = [make(n).documents[0] for n in range(9)]
    hard = Document("hard", "Bo", "Nobody knows where Bo was born.")
    example = from_nq(nq_row(), "x")
    haystack = RealPool([*pool, hard], "bm25")
    first = next(haystack.distractors(example.question, np.random.default_rng(0)))
    assert first.text == hard.text


def test_the_first_limit_to_bind_decides_and_tokens_are_never_exceeded(tokenizer):
    encoder = Encoder(tokenizer)
    pool = RealPool([make(n).documents[0] for n in range(1, 200)], "random")
    for tokens in (150, 301, 800):
        rng = np.random.default_rng(1)
        example = compose(
            make(0),
            pool.distractors(make(0).question, rng),
            Limits(12, tokens),
            encoder,
            Order(rng),
        )
        used = encoder.num_prompt_tokens(example)
        assert used <= tokens
        assert len(example.documents) <= 12
        one_more = used + encoder.num_document_tokens(make(100).documents[0], 10, "mdqa")
        assert len(example.documents) == 12 or one_more > tokens - 12


def test_what_cannot_fit_is_an_error_that_names_the_example(tokenizer):
    encoder, rng = Encoder(tokenizer), np.random.default_rng(0)
    with pytest.raises(InputError, match=r"example q5: .* over data\.context_tokens=20"):
        compose(make(5), iter(()), Limits(None, 20), encoder, Order(rng))
    with pytest.raises(InputError, match=r"example q5: only 0 documents"):
        compose(make(5), iter(()), Limits(4, None), encoder, Order(rng))


def test_without_limits_the_file_s_own_documents_and_order_stay(tokenizer):
    example = from_nq(nq_row(), "x")
    assert (
        compose(example, iter(()), Limits(None, None), Encoder(tokenizer), Order(None)) == example
    )


def test_own_distractors_come_before_others(tokenizer):
    example, rng = from_nq(nq_row(), "x"), np.random.default_rng(0)
    pool = RealPool([make(n).documents[0] for n in range(9)], "random")
    extra = pool.distractors(example.question, rng)
    composed = compose(example, extra, Limits(3, None), Encoder(tokenizer), Order(rng))
    assert {"Bo", "Cy"} < {document.title for document in composed.documents}


def sample_splits(tokenizer, seed=0, **changes):
    options = DataOptions(**{"num_val": 6, "num_reference": 6, "num_train": 10, **changes})
    return make_splits(options, Encoder(tokenizer), seed)


def test_one_source_is_dealt_to_all_three_splits(tokenizer, tmp_path):
    rows = [from_nq_like(make(n)) for n in range(40)]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    options = DataOptions(num_val=None, num_reference=None, num_documents=2)
    options.train.path = path
    splits = make_splits(options, Encoder(tokenizer), 0)
    assert options.cell("train") == ("real", "real")
    assert {name: len(split.encoded) for name, split in splits.items()} == {
        "train": 24,
        "val": 8,
        "reference": 8,
    }


def from_nq_like(example: Example) -> dict:
    document = example.documents[0]
    return {
        "question": example.question,
        "answers": list(example.answers),
        "ctxs": [{"title": document.title, "text": document.text, "isgold": True}],
    }


def test_concept_and_context_change_the_training_split_alone(tokenizer):
    real = sample_splits(tokenizer, concept="real", context="real")
    symbolic = sample_splits(tokenizer, concept="symbolic", context="symbolic")
    for name in ("val", "reference"):
        assert real[name].sha256 == symbolic[name].sha256
        assert symbolic[name].cell == ("real", "real")
    assert symbolic["train"].cell == ("symbolic", "symbolic")
    options = DataOptions(num_val=4, num_reference=4)
    options.val.concept = "low"
    assert options.cell("val") == ("low", "low")
    assert make_splits(options, Encoder(tokenizer), 0, ["val"])["val"].cell == ("low", "low")


def test_a_synthetic_validation_split_is_not_the_training_data(tokenizer):
    options = DataOptions(concept="low", num_train=5, num_val=5, num_reference=5)
    options.val.concept = options.reference.concept = "low"
    splits = make_splits(options, Encoder(tokenizer), options.eval_seed)
    questions = [{e.question for e in split.examples} for split in splits.values()]
    assert len(set.union(*questions)) == 15


def test_a_validation_file_is_not_dealt_to_synthetic_training(tokenizer, tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [from_nq_like(make(n)) for n in range(20)])
    options = DataOptions(num_val=None, num_reference=None, num_documents=2, num_train=4)
    options.val.path = path
    splits = make_splits(options, Encoder(tokenizer), 0)
    sizes = {name: len(split.encoded) for name, split in splits.items()}
    assert sizes == {"train": 4, "val": 10, "reference": 10}
    options.concept = "real"
    with pytest.raises(InputError, match=r"name data\.train\.path"):
        make_splits(options, Encoder(tokenizer), 0)


def test_too_few_questions_to_split_name_the_split_that_is_empty(tokenizer, tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [from_nq_like(make(n)) for n in range(2)])
    options = DataOptions(num_documents=1)
    options.train.path = path
    with pytest.raises(InputError, match="nothing is left for data"):
        make_splits(options, Encoder(tokenizer), 0)


def test_evaluation_contexts_do_not_depend_on_the_run_s_seed(tokenizer):
    one, other = sample_splits(tokenizer, seed=1), sample_splits(tokenizer, seed=2)
    assert one["val"].sha256 == other["val"].sha256
    assert one["reference"].sha256 == other["reference"].sha256
    assert one["train"].sha256 != other["train"].sha256


def test_sizes_match_across_cells_by_default(tokenizer):
    for concept in ("real", "high", "low", "symbolic"):
        options = DataOptions(concept=concept)
        split = make_splits(options, Encoder(tokenizer), 0, ["train"])["train"]
        assert len(split.encoded) == 240


@pytest.mark.data
def test_every_real_natural_question_is_read_with_its_evidence(nq_file):
    examples = read_questions(str(nq_file))
    assert len(examples) == 2000
    for example in examples:
        assert any(example.target in text for text in example.evidence_texts())
    assert np.mean([len(example.evidence) for example in examples]) < 1.3


@pytest.mark.data
def test_real_questions_are_split_by_document(nq_file, tokenizer):
    options = DataOptions(num_documents=5, distractors="bm25", num_train=20)
    options.train.path = str(nq_file)
    splits = make_splits(options, Encoder(tokenizer), 0)
    check_disjoint({name: split.examples for name, split in splits.items()})
    for split in splits.values():
        for example in split.examples:
            own = {span.document for span in example.evidence}
            others = [d for d in example.documents if d.id not in own]
            assert len(others) == 4
            assert not any(holds_answer(f"{d.title} {d.text}", example.answers) for d in others)


@pytest.mark.data
def test_one_file_is_dealt_by_the_shares_that_are_asked_for(nq_file):
    train = SplitOptions(path=str(nq_file))
    options = DataOptions(train=train, shares=[1, 2, 1])
    dealt, origins = real_questions(options, {}, SPLITS)
    assert [len(dealt[name]) for name in SPLITS] == pytest.approx([500, 1000, 500], abs=5)
    assert origins["val"] == f"a share of {nq_file}"
    options = DataOptions(train=train, val=SplitOptions(path=str(nq_file)), shares=[3, 1, 1])
    dealt, _ = real_questions(options, {}, SPLITS)  # val has its own file
    assert [len(dealt[name]) for name in SPLITS] == pytest.approx([1500, 2000, 500], abs=5)


@pytest.mark.parametrize(
    ("shares", "path", "said"),
    [
        ([0.5, 0.5], "q.jsonl", "must be three numbers > 0, of train, val and reference"),
        ([1, 0, 1], "q.jsonl", "must be three numbers > 0"),
        ([1, float("inf"), 1], "q.jsonl", "must be three numbers > 0"),
        ([1, 1, 1], None, "name one of data.train.path, data.val.path, data.refer"),
    ],
)
def test_shares_that_deal_nothing_are_refused(shares, path, said):
    with pytest.raises(InputError, match=re.escape(said)):
        DataOptions(train=SplitOptions(path=path), shares=shares)


@pytest.mark.parametrize("name", SPLITS)
def test_the_sample_keeps_its_rules(name):
    examples = read_questions(str(SAMPLE / f"{name}.jsonl"), "nq")
    assert len(examples) == {"train": 240, "val": 80, "reference": 80}[name]
    for example in examples:
        (document,) = example.documents
        assert 45 <= len(document.text.split()) <= 75
        assert document.text.count(example.answers[0]) == 1
        assert len(example.evidence) == 1
        assert example.question == example.question.lower().rstrip("?")


def test_the_sample_s_splits_share_no_paragraph_question_or_subject():
    splits = {name: read_questions(str(SAMPLE / f"{name}.jsonl"), "nq") for name in SPLITS}
    check_disjoint(splits)
    for name, examples in splits.items():
        titles = {example.documents[0].title for example in examples}
        for other in set(SPLITS) - {name}:
            for example in splits[other]:
                text = example.documents[0].text
                assert not any(title in text for title in titles), (name, other, example.id)


@pytest.mark.parametrize("task", ["mdqa", "musique", "summhay"])
@pytest.mark.parametrize("context", ["high", "symbolic"])
def test_written_pools_hold_each_passage_once_and_repeat_by_seed(task, context):
    def first(seed, draw):
        pool = WrittenPool(haystack(task, context), seed, "train", 0)
        rng = np.random.default_rng(draw)
        return [d.text for d in islice(pool.distractors("", rng), 300)]

    assert len(set(first(0, 0))) == 300
    assert first(0, 0) == first(0, 0)
    assert first(0, 0) != first(0, 1)
    assert not set(first(0, 0)) & set(first(1, 0))


def test_padding_never_runs_out_and_never_says_an_answer():
    padding = PaddingPool(haystack("mdqa", "low", ("blue",)))
    documents = list(islice(padding.distractors("", np.random.default_rng(0)), 300))
    assert len({document.id for document in documents}) == 300
    assert "blue" not in documents[0].text
