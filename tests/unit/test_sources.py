"""Bad input, however bad: one line that names file and place, or a row that is skipped and counted.

Every field of every format is taken away and set to values of every kind; files are cut short,
filled with garbage and made too long; hypothesis thinks of the rest.
"""

import copy
import gzip
import json
import math
import re
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from sce.data import rows, text
from sce.data.example import Document, Example, Span
from sce.data.mdqa import from_nq
from sce.data.musique import from_musique
from sce.data.needle import from_needle, read_text
from sce.data.sources import read_questions, read_source
from sce.data.summhay import from_summhay
from sce.data.text import holds_answer, occurrences, sentence_spans, sentences_holding
from sce.errors import InputError

FORMATS = ("example", "nq", "musique", "summhay", "needle")
ABSENT = object()


def deep(levels: int):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


# One of each kind that JSON, or what passes for it in Python, can hold.
VALUES = {
    "missing": ABSENT,
    "null": None,
    "true": True,
    "number": 7,
    "float": 0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "text": "Zanzibar",
    "NUL": "\0",
    "empty text": "",
    "blank text": " \t\n",
    "surrogate": "a \ud800 b",
    "empty list": [],
    "list of text": ["Zanzibar"],
    "list of null": [None],
    "list of numbers": [7],
    "nested list": [[["Zanzibar"]]],
    "empty object": {},
    "object": {"Zanzibar": 7},
    "nested deeply": deep(400),
}
NONE = {"missing", "null"}
# What is taken for a field of each kind; all else is an error.
ACCEPTED = {
    "only this": set(),
    "text": {"text", "NUL"},
    "optional text": {"text", "NUL", "empty text", "blank text"} | NONE,
    "id": {"number", "text", "NUL"},
    "optional id": {"number", "text", "NUL"} | NONE,
    "flag": {"true"},
    "optional flag": {"true"} | NONE,
    "texts that are read": NONE | {"empty list", "list of text"},
    "texts that help": NONE | {"empty list", "list of text", "list of null"},
    "object that helps": NONE | {"empty object", "object"},
    "index": {"number"},
    "list of known ids": {"empty list"},
    "any JSON": {*VALUES} - {"nan", "infinity", "surrogate"},
    "unread": {*VALUES},
}


def good(kind: str, number: int = 0) -> dict:
    """A row of a format, with an id of its own."""
    return {
        "example": _example_row,
        "nq": _nq_row,
        "musique": _musique_row,
        "summhay": _summhay_row,
        "needle": _needle_row,
    }[kind](number)


def _example_row(number: int) -> dict:
    return {
        "id": f"e{number}",
        "task": "mdqa",
        "documents": [
            {"id": "d0", "title": "Bo", "text": "Bo was born in Rome."},
            {"id": "d1", "title": "Cy", "text": "Cy is a town."},
        ],
        "question": "where was bo born",
        "answers": ["Rome"],
        "evidence": [{"document": "d0", "start": 0, "end": 20}],
        "meta": {"level": 1, "hop_answers": ["Rome"], "avoid": ["Milan"]},
    }


def _nq_row(number: int) -> dict:
    return {
        "id": f"n{number}",
        "question": "where was bo born",
        "answers": ["Rome"],
        "ctxs": [
            {"title": "Bo", "text": "Ada met Bo. Bo was born in Rome.", "isgold": True},
            {"title": "Cy", "text": "Cy is a town.", "isgold": False, "hasanswer": False},
        ],
        "nq_annotated_gold": {"short_answers": ["Rome"], "long_answer": "Bo was born in Rome."},
    }


def _musique_row(number: int) -> dict:
    return {
        "id": f"m{number}",
        "question": "when was the city where bo was born founded",
        "paragraphs": [
            {"idx": 0, "title": "Bo", "paragraph_text": "Ada met Bo. Bo was born in Rome."},
            {"idx": 1, "title": "Rome", "paragraph_text": "Rome was founded in 753 BC."},
            {"idx": 2, "title": "Cy", "paragraph_text": "Cy is a town.", "is_supporting": False},
        ],
        "question_decomposition": [
            {"question": "where was bo born", "answer": "Rome", "paragraph_support_idx": 0},
            {"question": "when was #1 founded", "answer": "753 BC", "paragraph_support_idx": 1},
        ],
        "answer": "753 BC",
        "answer_aliases": ["753 B.C."],
    }


def _summhay_row(number: int) -> dict:
    return {
        "topic_id": f"t{number}",
        "subtopics": [
            {
                "insights": [
                    {"insight_id": "i0", "insight": "Ada paints her walls red."},
                    {"insight_id": "i1", "insight": "Bo sells wooden boats."},
                ]
            }
        ],
        "documents": [
            {
                "document_id": "d0",
                "document_text": "We met at noon. Ada paints her walls red. Then we ate.",
                "insights_included": ["i0"],
            },
            {
                "document_id": "d1",
                "document_text": "Bo sells wooden boats. Ada said that she paints her walls red.",
                "insights_included": ["i0", "i1"],
            },
        ],
    }


def _needle_row(number: int) -> dict:
    return {
        "id": f"k{number}",
        "needle": "Bo was born in Rome.",
        "question": "where was bo born",
        "real_needle": "Rome",
    }


# Every field that is read, and some that are not: format, path, kind.
FIELDS = [
    ("example", "id", "id"),
    ("example", "task", "only this"),
    ("example", "documents", "only this"),
    ("example", "documents 1", "only this"),
    ("example", "documents 1 id", "id"),
    ("example", "documents 1 title", "optional text"),
    ("example", "documents 1 text", "text"),
    ("example", "question", "text"),
    ("example", "answers", "only this"),
    ("example", "answers 0", "only this"),
    ("example", "evidence", "only this"),
    ("example", "evidence 0", "only this"),
    ("example", "evidence 0 document", "only this"),
    ("example", "evidence 0 start", "index"),
    ("example", "evidence 0 end", "only this"),
    ("example", "meta", "object that helps"),
    ("example", "meta level", "any JSON"),
    ("example", "meta hop_answers", "texts that are read"),
    ("example", "meta avoid", "texts that are read"),
    ("example", "comment", "unread"),
    ("nq", "id", "optional id"),
    ("nq", "question", "text"),
    ("nq", "answers", "only this"),
    ("nq", "answers 0", "only this"),
    ("nq", "ctxs", "only this"),
    ("nq", "ctxs 0", "only this"),
    ("nq", "ctxs 0 title", "optional text"),
    ("nq", "ctxs 0 text", "only this"),
    ("nq", "ctxs 0 isgold", "flag"),
    ("nq", "ctxs 1 text", "text"),
    ("nq", "ctxs 1 isgold", "optional flag"),
    ("nq", "ctxs 1 hasanswer", "unread"),
    ("nq", "nq_annotated_gold", "object that helps"),
    ("nq", "nq_annotated_gold short_answers", "texts that help"),
    ("nq", "nq_annotated_gold short_answers 0", "optional text"),
    ("nq", "nq_annotated_gold long_answer", "optional text"),
    ("nq", "nq_annotated_gold chunked_long_answer", "optional text"),
    ("musique", "id", "optional id"),
    ("musique", "question", "text"),
    ("musique", "paragraphs", "only this"),
    ("musique", "paragraphs 1", "only this"),
    ("musique", "paragraphs 1 idx", "only this"),
    ("musique", "paragraphs 1 title", "optional text"),
    ("musique", "paragraphs 1 paragraph_text", "only this"),
    ("musique", "paragraphs 2 idx", "index"),
    ("musique", "paragraphs 2 paragraph_text", "text"),
    ("musique", "paragraphs 2 is_supporting", "unread"),
    ("musique", "question_decomposition", "only this"),
    ("musique", "question_decomposition 0", "only this"),
    ("musique", "question_decomposition 0 question", "text"),
    ("musique", "question_decomposition 0 answer", "only this"),
    ("musique", "question_decomposition 0 paragraph_support_idx", "only this"),
    ("musique", "answer", "text"),
    ("musique", "answer_aliases", "texts that are read"),
    ("musique", "answer_aliases 0", "text"),
    ("summhay", "topic_id", "optional id"),
    ("summhay", "subtopics", "only this"),
    ("summhay", "subtopics 0", "only this"),
    ("summhay", "subtopics 0 insights", "only this"),
    ("summhay", "subtopics 0 insights 0", "only this"),
    ("summhay", "subtopics 0 insights 0 insight_id", "only this"),
    ("summhay", "subtopics 0 insights 0 insight", "text"),
    ("summhay", "subtopics 0 subtopic_id", "unread"),
    ("summhay", "documents", "only this"),
    ("summhay", "documents 0", "only this"),
    ("summhay", "documents 0 document_id", "id"),
    ("summhay", "documents 0 document_text", "text"),
    ("summhay", "documents 0 insights_included", "list of known ids"),
    ("summhay", "documents 0 insights_included 0", "only this"),
    ("needle", "id", "optional id"),
    ("needle", "needle", "only this"),
    ("needle", "question", "text"),
    ("needle", "real_needle", "only this"),
    ("needle", "answer", "unread"),
]
# Entries that a row can do without.
ENTRIES = {
    "documents 1",
    "documents 0",
    "nq_annotated_gold short_answers 0",
    "question_decomposition 0",
    "answer_aliases 0",
    "documents 0 insights_included 0",
}


def changed(row: dict, path: str, value):
    """The row with another value at a path, or without it."""
    row = copy.deepcopy(row)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split()]
    inner = row
    for key in parents:
        inner = inner[key]
    if value is ABSENT:
        if isinstance(inner, list) or last in inner:
            del inner[last]
    else:
        inner[last] = value
    return row


def accepted(kind: str, path: str, value: str) -> bool:
    if value == "missing" and path in ENTRIES:
        return True
    return value in ACCEPTED[kind]


def mutations(row_format: str, start: int = 1) -> list[tuple[str, dict, bool]]:
    """(what was done, row, whether it is still a row) for every field and value."""
    made = []
    for owner, path, kind in FIELDS:
        for name, value in VALUES.items() if owner == row_format else ():
            row = good(row_format, start + len(made))
            fine = accepted(kind, path, name)
            made.append((f"{path} = {name}", changed(row, path, value), fine))
    return made


def write(file: Path, rows: list) -> Path:
    """Rows as a file of the kind that its name says; texts and bytes are lines as they are."""
    if file.name.removesuffix(".gz").endswith(".json"):
        content = json.dumps(rows).encode()
    else:
        lines = [row if isinstance(row, (str, bytes)) else json.dumps(row) for row in rows]
        encoded = [line.encode() if isinstance(line, str) else line for line in lines]
        content = b"".join(line + b"\n" for line in encoded)
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)
    return file


def place(file: Path, index: int) -> str:
    lines = file.name.removesuffix(".gz").endswith((".jsonl", ".csv"))
    return f"{file}:{index + 1}" if lines else f"{file}[{index}]"


def refusal(file: Path, row_format: str = "auto", **how) -> str:
    """The one line that a source is refused with."""
    with pytest.raises(InputError) as caught:
        read_source(str(file), row_format, **how)
    assert type(caught.value) is InputError
    message = str(caught.value)
    assert message.startswith(str(file))
    assert_is_one_line(message)
    return message


def assert_is_one_line(message: str) -> None:
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 1000


def assert_valid(examples: list[Example]) -> None:
    """What the rest of the program relies on."""
    for example in examples:
        example.check()
        texts = {document.id: document.text for document in example.documents}
        for span in example.evidence:
            assert 0 <= span.start < span.end <= len(texts[span.document])
        if example.task != "summhay":
            assert any(example.target in part for part in example.evidence_texts())
        line = json.dumps(example.to_json(), ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
        back = Example.from_json(json.loads(line))
        assert back == example or not plain(example)
        assert all(isinstance(secret, str) for secret in example.secrets)


def plain(example: Example) -> bool:
    """Whether JSON gives meta back as it is; its keys are texts and it has no nulls to drop."""
    return json.loads(json.dumps(example.to_json())) == example.to_json() and all(
        example.meta.get(name, True) for name in ("hop_answers", "avoid")
    )


def ids(examples: list[Example]) -> list[str]:
    return [example.id.split(":")[0] for example in examples]


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_good_row_is_read_whatever_the_file(tmp_path, row_format):
    expected = None
    for name in ("q.jsonl", "q.jsonl.gz", "q.json", "q.json.gz"):
        file = write(tmp_path / name, [good(row_format, n) for n in range(3)])
        source = read_source(str(file))
        assert source.format == row_format
        assert source.skipped == []
        assert_valid(source.examples)
        expected = expected or source.examples
        assert source.examples == expected


@pytest.mark.parametrize(("row_format", "path", "kind"), FIELDS)
def test_a_field_of_another_type_is_one_error_or_one_skipped_row(tmp_path, row_format, path, kind):
    file = tmp_path / "q.jsonl"
    before, after = good(row_format, 1), good(row_format, 2)
    around = {row.get("id") or row["topic_id"] for row in (before, after)}
    for name, value in VALUES.items():
        write(file, [before, changed(good(row_format), path, value), after])
        source = read_source(str(file), row_format, skip_bad_rows=True)
        assert_valid(source.examples)
        assert around <= set(ids(source.examples)), name
        if accepted(kind, path, name):
            assert source.skipped == [], name
            assert len(set(ids(source.examples))) == 3, name
            assert read_source(str(file), row_format).examples == source.examples
        else:
            assert set(ids(source.examples)) == around, name
            message = refusal(file, row_format)
            assert message.startswith(f"{file}:2: "), name
            assert source.skipped == [message], name


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz", "q.json", "q.json.gz"])
@pytest.mark.parametrize("row_format", FORMATS)
def test_every_bad_row_is_listed_once_and_every_good_one_kept(tmp_path, row_format, name):
    made = [("nothing", good(row_format), True), *mutations(row_format)]
    file = write(tmp_path / name, [row for _, row, _ in made])
    source = read_source(str(file), skip_bad_rows=True)
    wrong = [place(file, index) for index, (_, _, fine) in enumerate(made) if not fine]
    assert [line.split(": ")[0] for line in source.skipped] == wrong
    for line in source.skipped:
        assert_is_one_line(line)
    kept = len(set(ids(source.examples)))
    # A row without an id of its own may be numbered, and one id is set in several rows.
    assert kept + len(wrong) <= len(made)
    assert kept > 10


@pytest.mark.parametrize("name", ["q.parquet", "saved"])
@pytest.mark.parametrize("row_format", FORMATS)
def test_parquet_and_saved_datasets_are_judged_as_json_lines_are(
    tmp_path, monkeypatch, row_format, name
):
    import datasets
    import pyarrow

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    schema = pyarrow.Table.from_pylist([good(row_format)]).schema
    tables = [pyarrow.Table.from_pylist([good(row_format, n) for n in range(2)], schema=schema)]
    for _, row, _ in mutations(row_format, 2):
        try:
            tables.append(pyarrow.Table.from_pylist([row], schema=schema))
        except (pyarrow.ArrowException, TypeError, ValueError, AttributeError):
            continue  # a column has one type
    table = pyarrow.concat_tables(tables)
    dataset = datasets.Dataset(table)
    file = tmp_path / name
    dataset.save_to_disk(str(file)) if name == "saved" else dataset.to_parquet(str(file))
    lines = write(tmp_path / "q.jsonl", table.to_pylist())
    found = read_source(str(file), skip_bad_rows=True)
    expected = read_source(str(lines), row_format, skip_bad_rows=True)
    assert found.examples == expected.examples
    assert found.format == row_format
    assert len(found.skipped) > 8
    as_lines = [
        re.sub(r"^.*?\[(\d+)\]", lambda m: f"{lines}:{int(m[1]) + 1}", line)
        for line in found.skipped
    ]
    assert as_lines == expected.skipped
    assert refusal(file) == found.skipped[0]


LONG_NUMBER = "1" * 5000
MEANINGS = [
    ("example", "documents 1 id", "d0", "two documents share an id"),
    ("example", "evidence 0 document", "d9", "which it lacks"),
    ("example", "evidence 0 end", 21, "outside document d0 of 20 characters"),
    ("example", "evidence 0 end", 0, "outside document"),
    ("example", "evidence 0 start", -1, "outside document"),
    ("example", "evidence 0 start", False, "start must be a whole number, got False"),
    ("example", "evidence 0 end", 20.0, "end must be a whole number, got 20.0"),
    ("example", "evidence 0 end", "20", "end must be a whole number, got '20'"),
    ("example", "evidence 0 end", 10**40, "outside document"),
    ("example", "evidence 0 end", 14, "none of its answers"),
    ("example", "answers", ["Milan"], "none of its answers"),
    ("example", "answers", "Rome", "answers must be a list of texts, got 'Rome'"),
    ("example", "task", "chess", "task 'chess'; known: mdqa"),
    ("example", "task", "summhay", "answers must be the ids of the documents"),
    ("example", "meta hop_answers", "Rome", "meta.hop_answers must be a list of texts"),
    ("example", "meta level", [1, {"x": math.nan}], "meta is not plain JSON"),
    ("example", "id", "a\nb\x1b[2J", None),
    ("example", "documents 1 id", 0, None),
    ("nq", "ctxs 0 isgold", False, "no document is marked isgold"),
    ("nq", "ctxs 0 isgold", 1, "isgold must be true or false, got 1"),
    ("nq", "ctxs 1 isgold", "false", "isgold must be true or false, got 'false'"),
    ("nq", "answers", ["town"], "none of the answers ['town'] stands in the gold document"),
    ("nq", "answers", ["Rome", ""], "answers must be texts and not blank"),
    ("nq", "answers", "Rome", "answers must be a list of texts, got 'Rome'"),
    ("nq", "nq_annotated_gold", ["Rome"], "nq_annotated_gold is not an object"),
    ("nq", "nq_annotated_gold short_answers", "Rome", "short_answers must be a list of texts"),
    ("nq", "nq_annotated_gold short_answers", ["Milan"], None),
    ("nq", "ctxs 1 text", "Rome! Rome.", None),
    ("nq", "ctxs 0 text", "J.\N{NO-BREAK SPACE}R. B\N{NO-BREAK SPACE}. Bo went to Rome.", None),
    ("musique", "question_decomposition 0 paragraph_support_idx", 3, "=3 is no paragraph's idx"),
    ("musique", "question_decomposition 0 paragraph_support_idx", -1, "=-1 is no paragraph's idx"),
    ("musique", "question_decomposition 0 paragraph_support_idx", False, "got False"),
    ("musique", "question_decomposition 0 paragraph_support_idx", 0.0, "got 0.0"),
    ("musique", "question_decomposition 0 paragraph_support_idx", "0", "got '0'"),
    ("musique", "question_decomposition 0 paragraph_support_idx", 2, "hop 1: its answer 'Rome'"),
    ("musique", "question_decomposition 0 question", f"when was #{LONG_NUMBER}", None),
    ("musique", "question_decomposition 0 question", "when was #0 or #\N{SUPERSCRIPT TWO}", None),
    ("musique", "question_decomposition 0 answer", " Rome", None),
    ("musique", "question_decomposition 0 answer", "ROME", None),
    ("musique", "question_decomposition 0 answer", "...", "hop 1: its answer '...' does not"),
    ("musique", "paragraphs 2 idx", 0, "two paragraphs share the idx 0"),
    ("musique", "paragraphs 2 idx", 10**400, None),
    ("musique", "paragraphs 2 paragraph_text", "Cy", None),
    ("musique", "answer_aliases", "753", "answer_aliases must be a list of texts, got '753'"),
    ("musique", "answer_aliases", ["753", " "], "answer_aliases must be texts and not blank"),
    ("summhay", "documents 0 insights_included", ["i0", "i9"], "includes insight i9, which no"),
    ("summhay", "documents 0 insights_included", "i0", "insights_included must be a list of ids"),
    ("summhay", "documents 0 insights_included", ["i0", "i0"], None),
    ("summhay", "documents 0 document_id", "d1", "two documents share a document_id"),
    ("summhay", "subtopics 0 insights 0 insight_id", "i1", "two insights share an insight_id"),
    ("summhay", "subtopics 0 insights", [], "no subtopic has an insight"),
    ("summhay", "subtopics 0 insights 0 insight", "?! ...", None),
    ("summhay", "documents 0 document_text", "?! ...", None),
    ("summhay", "documents", [], "includes|has a word in it"),
    ("needle", "real_needle", "Milan", "the answer 'Milan' does not stand in the needle"),
    ("needle", "real_needle", "...", "the answer '' does not stand in the needle"),
    ("needle", "real_needle", 1901, "real_needle must be a text, got 1901"),
    ("needle", "real_needle", "rome.", None),
    ("needle", "needle", "Rome", None),
]


@pytest.mark.parametrize(("row_format", "path", "value", "message"), MEANINGS)
def test_a_row_that_contradicts_itself_is_one_error(tmp_path, row_format, path, value, message):
    row = changed(good(row_format), path, value)
    file = write(tmp_path / "q.jsonl", [good(row_format, 1), row])
    if message is None:
        examples = read_questions(str(file))
        assert_valid(examples)
        assert len(set(ids(examples))) == 2
    else:
        said = refusal(file)
        assert said.startswith(f"{file}:2: ")
        assert re.search(message if "|" in message else re.escape(message), said)


def test_a_haystack_without_words_or_documents_is_one_error(tmp_path):
    row = good("summhay")
    for document in row["documents"]:
        document["document_text"] = "?! ..."
    assert "has a word in it" in refusal(write(tmp_path / "q.jsonl", [row]))
    row = {**good("summhay"), "documents": []}
    assert "has a word in it" in refusal(write(tmp_path / "q.jsonl", [row]))


def test_an_insight_that_no_document_has_is_counted(tmp_path):
    row = changed(good("summhay"), "documents 1 insights_included", ["i0"])
    source = read_source(str(write(tmp_path / "q.jsonl", [row])))
    assert [example.id for example in source.examples] == ["t0:i0"]
    assert source.counts["insights without a document"] == 1


def test_whole_numbers_pass_for_ids(tmp_path):
    row = good("summhay")
    row["topic_id"] = 0
    for number, insight in enumerate(row["subtopics"][0]["insights"]):
        insight["insight_id"] = number
    for number, document in enumerate(row["documents"]):
        document["document_id"] = number
        document["insights_included"] = list(range(number + 1))
    examples = read_questions(str(write(tmp_path / "q.jsonl", [row])))
    assert [example.id for example in examples] == ["0:0", "0:1"]
    assert examples[0].answers == ("0", "1")


def test_a_row_that_was_skipped_leaves_nothing_behind(tmp_path):
    task = {**good("example", 0), "task": "needle"}
    file = write(tmp_path / "q.jsonl", [task, good("example", 0), good("example", 0)])
    source = read_source(str(file), skip_bad_rows=True, task="mdqa")
    assert ids(source.examples) == ["e0"]
    assert source.skipped == [
        f"{file}:1: a row of task needle, but data.task=mdqa",
        f"{file}:3: the id e0 stands twice (first at {file}:2)",
    ]
    file = write(tmp_path / "s.jsonl", [good("summhay", 0), good("summhay", 0)])
    once = read_source(str(write(tmp_path / "o.jsonl", [good("summhay")]))).counts
    assert read_source(str(file), skip_bad_rows=True).counts == once


def test_the_format_is_guessed_from_the_first_row_that_has_one(tmp_path):
    unknown = {"b\n\x1b": 1, "a": 2}
    file = write(tmp_path / "q.jsonl", ["{broken", unknown, good("nq"), good("needle")])
    source = read_source(str(file), skip_bad_rows=True)
    assert source.format == "nq"
    assert [line.split(": ")[0] for line in source.skipped] == [f"{file}:{n}" for n in (1, 2, 4)]
    assert "q.jsonl:1: no known format has the fields a, b" in refusal(write(file, [unknown]))
    message = refusal(file, skip_bad_rows=True)
    assert f"no questions in it (1 rows skipped, first: {file}:1: no known format" in message


def test_a_message_is_short_and_printable_whatever_the_row_holds(tmp_path):
    for value in ("x" * 10**6, "\n\r\x1b[2J\0\u2028" * 1000, "\ud800" * 1000):
        for path in ("id", "documents 0 id", "evidence 0 document", "task", "answers 0"):
            row = changed(changed(good("example"), path, value), "evidence 0 end", 99)
            refusal(write(tmp_path / "q.jsonl", [row]))


NOT_A_ROW = {
    "not UTF-8": b'{"question": "\xff"}',
    "UTF-16": "{}".encode("utf-16"),
    "not JSON": b'{"question": "x",}',
    "two rows": b"{} {}",
    "half a row": b'{"question": "wh',
    "NUL bytes": b"\0\0\0",
    "control character": b'{"question": "a\0b"}',
    "a list": b"[]",
    "a text": b'"text"',
    "null": b"null",
    "nested too deeply": b"[" * 100_000,
    "nested object": b'{"a":' * 100_000,
    "a number of 5,000 digits": b'{"question": ' + LONG_NUMBER.encode() + b"}",
    "old Mac line ends": b"{}\r{}",
}


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz", "q.json"])
@pytest.mark.parametrize("line", NOT_A_ROW.values(), ids=NOT_A_ROW)
def test_a_line_that_is_no_row_is_named(tmp_path, line, name):
    first, last = good("needle", 0), good("needle", 1)
    # JSON Lines are recognised under the name .json too.
    file = write(tmp_path / "lines.jsonl", [first, line, last])
    content = file.read_bytes()
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    assert refusal(file).startswith(f"{file}:2: not ")
    source = read_source(str(file), skip_bad_rows=True)
    assert ids(source.examples) == ["k0", "k1"]
    assert source.skipped == [refusal(file)]


def test_nesting_up_to_what_the_parser_takes_is_one_error(tmp_path):
    for levels in range(700, 1000, 7):
        for path in ("answers", "documents", "meta hop_answers", "meta level"):
            line = json.dumps(changed(good("example"), path, "HERE"))
            line = line.replace('"HERE"', "[" * levels + "]" * levels)
            file = write(tmp_path / "q.jsonl", [good("example", 1), line])
            source = read_source(str(file), skip_bad_rows=True)
            assert len(source.examples) + len(source.skipped) == 2
            assert path == "meta level" or len(source.skipped) == 1
            assert_is_one_line(source.skipped[0] if source.skipped else "none")


def test_items_of_a_json_list_that_are_no_rows_are_named(tmp_path):
    file = write(tmp_path / "q.json", [good("needle", 0), 3, [good("needle")], good("needle", 1)])
    assert refusal(file) == f"{file}[1]: not a JSON object"
    source = read_source(str(file), skip_bad_rows=True)
    assert ids(source.examples) == ["k0", "k1"]
    assert source.skipped == [f"{file}[{n}]: not a JSON object" for n in (1, 2)]
    assert refusal(write(tmp_path / "n.json", 3)).endswith("n.json[0]: not a JSON object")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'[\n{"question": "x"},\n{"question": }\n]', ":3: not JSON"),
        (b'[\n{"question": "x"},\n{"question": "\xff"}\n]', ":3: not UTF-8"),
        (b'[\n{"question": "x"},\n', ":3: not JSON"),
        (b"[" * 100_000, ":1: not JSON that can be read"),
        (b"[" + LONG_NUMBER.encode() + b"]", ":1: not JSON that can be read"),
        (b'[{"a": 1}] []', ":1: not JSON"),
        (b"\0" * 100, ":1: not JSON"),
    ],
)
def test_a_json_file_that_is_none_is_named_with_its_line(tmp_path, content, place):
    file = tmp_path / "q.json"
    file.write_bytes(content)
    for skip in (False, True):
        assert f"q.json{place}" in refusal(file, skip_bad_rows=skip)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "txt"])
@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n\t\n\n"])
def test_a_file_without_rows_has_no_questions(tmp_path, suffix, content):
    file = tmp_path / f"q.{suffix}"
    file.write_bytes(gzip.compress(content) if content and suffix.endswith("gz") else content)
    for skip in (False, True):
        assert refusal(file, skip_bad_rows=skip) == f"{file}: no questions in it"


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz", "q.json"])
def test_byte_order_marks_line_ends_and_blank_lines_are_no_rows(tmp_path, name):
    lines = [json.dumps(good("needle", n)).encode() for n in range(3)]
    file = tmp_path / name
    for content in (
        b"\xef\xbb\xbf" + b"\n".join(lines),
        b"\r\n".join(lines) + b"\r\n",
        b"\n\n" + b"\n \t\r\n\n".join(lines) + b"\n\n\n",
    ):
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
        assert ids(read_questions(str(file), "needle")) == ["k0", "k1", "k2"]
    file = tmp_path / "blank.jsonl"
    file.write_bytes(b"\r\n\n" + lines[0] + b"\r\n\r\n{\r\n")
    assert refusal(file).startswith(f"{file}:5: not JSON")


def test_a_file_cut_anywhere_gives_its_whole_rows_and_names_the_half_one(tmp_path):
    content = b"".join(json.dumps(good("needle", n)).encode() + b"\n" for n in range(3))
    file = tmp_path / "q.jsonl"
    for cut in range(1, len(content)):
        file.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n") + (content[cut : cut + 1] == b"\n")
        half = not content[:cut].endswith(b"\n") and content[cut : cut + 1] != b"\n"
        if half:
            assert refusal(file).startswith(f"{file}:{whole + 1}: not JSON")
        if whole:
            source = read_source(str(file), skip_bad_rows=True)
            assert (len(source.examples), len(source.skipped)) == (whole, half)


@pytest.mark.parametrize("name", ["q.jsonl.gz", "q.json.gz"])
def test_a_gzip_file_that_is_cut_short_or_damaged_is_never_taken_for_a_whole_one(tmp_path, name):
    file = write(tmp_path / name, [good("needle", n) for n in range(50)])
    content = file.read_bytes()
    expected = read_questions(str(file))
    damaged = [content[:cut] for cut in range(1, len(content), 3)]
    for at in range(0, len(content), 3):
        damaged.append(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
    damaged += [b"no gzip", content + b"junk", content + content[:40], b"\x1f\x8b" * 99]
    harmless = 0
    for bytes_ in damaged:
        file.write_bytes(bytes_)
        try:
            examples = read_source(str(file), skip_bad_rows=True).examples
        except InputError as error:
            assert re.match(rf"{re.escape(str(file))}:\d+: cannot be read \(", str(error))
            assert_is_one_line(str(error))
        else:
            # Bytes of the header that say nothing of the content, such as its date.
            assert examples == expected
            harmless += 1
    assert harmless < 5


def test_a_line_of_200_mb_is_named_at_once_and_passed_over_without_being_held(tmp_path):
    file = write(tmp_path / "q.jsonl", [good("needle", 0)])
    with file.open("r+b") as stream:
        stream.seek(200 * 10**6)  # a hole: no bytes are written
        stream.write(b"\n" + json.dumps(good("needle", 1)).encode())
    tracemalloc.start()
    message = refusal(file)
    source = read_source(str(file), skip_bad_rows=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message == f"{file}:2: a line of over 64 MiB; there is one row a line"
    assert source.skipped == [message]
    assert ids(source.examples) == ["k0", "k1"]
    assert peak < 150 * 2**20


def test_the_limit_on_a_line_holds_for_gzip_and_csv_and_for_nothing_shorter(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 200)
    first, last = good("needle", 0), good("needle", 1)
    for length in (200, 201, 202, 5000):
        line = json.dumps(good("needle", 2)).encode().ljust(length - 1)
        file = write(tmp_path / "q.jsonl.gz", [first, line, last])
        source = read_source(str(file), skip_bad_rows=True)
        assert len(source.skipped) == (length > 200)
        assert len(source.examples) == 3 - (length > 200)
    # Without a line end, and cut off while it is passed over.
    assert ":2: a line of over" in refusal(write(file, [first, b"x" * 999]))
    file.write_bytes(gzip.compress(json.dumps(first).encode() + b"\n" + b"x" * 10**6)[:-20])
    assert "cannot be read" in refusal(file, skip_bad_rows=True)
    file = tmp_path / "q.csv"
    file.write_text("needle,question,answer\n" + "x" * 999)
    assert refusal(file).startswith(f"{file}:2: a line of over")


def test_a_json_file_too_large_to_be_read_whole_is_refused_at_once(tmp_path, monkeypatch):
    file = tmp_path / "q.json"
    with file.open("wb") as stream:
        stream.truncate(rows.MAX_JSON_BYTES + 1)  # a hole: no bytes are written
    tracemalloc.start()
    message = refusal(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message == (
        f"{file}: over 1024 MiB, and a .json file is read whole; write it as JSON Lines (.jsonl), "
        "one row a line"
    )
    assert peak < 2**20
    file.unlink()
    monkeypatch.setattr(rows, "MAX_JSON_BYTES", 10_000)
    file = tmp_path / "q.json.gz"
    file.write_bytes(gzip.compress(b" " * 10_001))
    assert "q.json.gz: over 0 MiB" in refusal(file)


def test_csv_cells_are_texts_and_a_row_of_another_length_is_named(tmp_path):
    head = b"\xef\xbb\xbfid,needle,question,answer\r\n"
    fine = b",Bo was born in 1901.,when,1901\r\n"
    file = tmp_path / "q.csv"
    file.write_bytes(head + fine + b'a,"It is\nin NA, now.",where,NA\r\n\r\n')
    examples = read_questions(str(file))
    assert_valid(examples)
    assert [(e.id, e.target) for e in examples] == [("needle-0", "1901"), ("a", "NA")]
    for line, message in (
        (b"b,x,y\r\n", "3 cells under 4 names"),
        (b"b,x,y,z,z\r\n", "5 cells under 4 names"),
        (b"b,in \xff,y,in\r\n", "not UTF-8"),
        (b"b,,y,in\r\n", "needle must be a text, got nothing"),
    ):
        file.write_bytes(head + fine + line + fine)
        assert refusal(file).startswith(f"{file}:3: ")
        source = read_source(str(file), skip_bad_rows=True)
        assert source.skipped == [refusal(file)]
        assert message in source.skipped[0]
        assert len(source.examples) == 2
    for content, message in (
        (head + b'b,"x,y,z\r\n', ":2: not CSV"),
        (head + b'b,"' + b"x\n" * 10**5 + b'",y,z', ": not CSV (field larger"),
        (b"id,id\n1,2", ":1: two columns share a name"),
        (b"\xff,id\n1,2", ":2: no known format"),
    ):
        file.write_bytes(content)
        assert f"q.csv{message}" in refusal(file) or message in refusal(file)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_a_folder_that_is_no_dataset_is_named(tmp_path, datasets):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "datasets cannot read it" in refusal(folder)
    for content in ("{}", "[]", "{", '{"_data_files": [{"filename": "no.arrow"}]}'):
        for name in ("state.json", "dataset_info.json"):
            (folder / name).write_text(content)
        refusal(folder)
    dataset = datasets.Dataset.from_list([good("needle", n) for n in range(9)])
    dataset.save_to_disk(str(tmp_path / "saved"))
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    content = arrow.read_bytes()
    for cut in range(0, len(content), 100):
        arrow.write_bytes(content[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read_questions(str(tmp_path / "saved"))
            except InputError as error:
                assert_is_one_line(str(error))
            else:
                assert len(found) == 9  # only the end mark was cut
    dataset.select([]).save_to_disk(str(tmp_path / "none"))
    refusal(tmp_path / "none")
    datasets.DatasetDict(train=dataset).save_to_disk(str(tmp_path / "splits"))
    assert "holds the splits ['train']; name one" in refusal(tmp_path / "splits")


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_broken_parquet_or_arrow_file_is_one_line(tmp_path, datasets, capfd, suffix):
    dataset = datasets.Dataset.from_list([good("needle", n) for n in range(9)])
    dataset.to_parquet(str(tmp_path / "q.parquet"))
    content = (tmp_path / "q.parquet").read_bytes()
    capfd.readouterr()
    for number, broken in enumerate(
        (b"", b"junk" * 99, content[:-1], content[: len(content) // 2])
    ):
        file = tmp_path / f"{number}.{suffix}"
        file.write_bytes(broken)
        assert "datasets cannot read it" in refusal(file)
    assert "Failed" not in capfd.readouterr().err
    dataset.select([]).to_parquet(str(tmp_path / "none.parquet"))
    refusal(tmp_path / "none.parquet")


def test_a_parquet_row_that_is_no_utf8_is_skipped_alone(tmp_path, datasets):
    import pyarrow
    from pyarrow import parquet

    offsets = pyarrow.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 4, 8, 12)))
    answers = pyarrow.StringArray.from_buffers(3, offsets, pyarrow.py_buffer(b"RomeRo\xffeRome"))
    columns = {"needle": ["In Rome."] * 3, "question": ["where"] * 3, "answer": answers}
    file = tmp_path / "q[1].parquet"  # brackets are no pattern
    parquet.write_table(pyarrow.table(columns), file)
    source = read_source(str(file), skip_bad_rows=True)
    assert len(source.examples) == 2
    assert source.skipped == [refusal(file)]
    assert source.skipped[0].startswith(f"{file}[1]: cannot be decoded (UnicodeDecodeError: ")


def test_a_path_that_leads_nowhere_is_one_line(tmp_path, monkeypatch):
    for path, message in (
        (tmp_path / "no.jsonl", "no such file or folder"),
        ("~nobody-of-this-name/q.jsonl", "cannot be read"),
        (tmp_path / ("x" * 300 + ".jsonl"), "cannot be read"),
        (write(tmp_path / "q.yaml", []), "neither JSON Lines, JSON, Parquet, Arrow nor CSV"),
        (write(tmp_path / "q.gz", []), "neither JSON Lines"),
    ):
        assert message in refusal(path)
    with pytest.raises(InputError, match="no such file"):
        read_source("a\0b.jsonl")

    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("no hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert refusal("hf:some/name:train").endswith("(ConnectionError: no hub)")


def test_what_the_system_cannot_read_is_one_line(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path / "q.jsonl", [good("needle")])
    monkeypatch.setattr(Path, "open", refused)
    assert refusal(file).startswith(f"{file}:1: cannot be read")


def test_a_haystack_text_is_read_with_a_byte_order_mark_and_crlf_and_refused_if_broken(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_bytes(b"One line.\nTwo lines.\n\nNext.")
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbfOne line.\r\nTwo lines.\r\n\r\nNext.")
    assert read_text([str(file)]) == read_text([str(plain)])
    assert [document.text for document in read_text([str(file)])] == [
        "One line. Two lines.",
        "Next.",
    ]
    content = gzip.compress(plain.read_bytes() * 100)
    file = tmp_path / "text.txt.gz"
    damaged = [content[:20], b"junk", content[:20] + b"\xff" * 9 + content[29:], content[:-3]]
    for bytes_ in (*damaged, gzip.compress(b"\xff"), gzip.compress(b" \n")):
        file.write_bytes(bytes_)
        with pytest.raises(InputError, match=re.escape(str(file))):
            read_text([str(file)])
    with pytest.raises(InputError, match="cannot be read"):
        read_text(["~nobody-of-this-name/text.txt"])


@pytest.mark.parametrize("file", sorted((ROOT / "sce" / "data" / "sample").rglob("*.json*")))
def test_the_files_of_the_sample_are_read_whole(file):
    source = read_source(str(file))
    assert source.skipped == []
    assert_valid(source.examples)
    assert len(source.examples) >= 15


# --- what hypothesis thinks of ---

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["Rome", "Bo was born in Rome.", "\ud800", "\0", "B\N{NO-BREAK SPACE}.", "d0", "i0", "#1"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
READERS = {
    "example": lambda row: [Example.from_json(row)],
    "nq": lambda row: [from_nq(row, "x")],
    "musique": lambda row: [from_musique(row, "x")],
    "summhay": lambda row: from_summhay(row, "x", Counter()),
    "needle": lambda row: [from_needle(row, "x")],
}


def paths_of(value, path: tuple = ()) -> list[tuple]:
    """The keys that lead to every value within a value."""
    if not isinstance(value, (dict, list)):
        return []
    keys = value if isinstance(value, dict) else range(len(value))
    return [found for key in keys for found in [(*path, key), *paths_of(value[key], (*path, key))]]


@st.composite
def damaged_rows(draw, row_format: str) -> dict:
    """A good row with up to three values replaced, or an object with the same fields."""
    row = good(row_format)
    if draw(st.integers(0, 4)) == 0:
        return {key: draw(JSON) for key in row if draw(st.booleans())}
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(paths_of(row)))
        inner = row
        for key in parents:
            inner = inner[key]
        inner[last] = draw(TEXTS if isinstance(inner[last], str) and draw(st.booleans()) else JSON)
    return row


@pytest.mark.parametrize("row_format", FORMATS)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_object_is_a_question_or_an_input_error(row_format, data):
    row = data.draw(damaged_rows(row_format))
    try:
        examples = READERS[row_format](row)
    except InputError:
        return
    assert examples
    assert_valid(examples)


@st.composite
def examples(draw) -> Example:
    word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
    name = word.filter(str.strip)
    documents, evidence = [], []
    names = draw(st.lists(name, min_size=1, max_size=4, unique=True))
    answer = draw(name)
    for number, own in enumerate(names):
        before, after = draw(word), draw(word)
        documents.append(Document(own, draw(st.text("ab ", max_size=3)), before + answer + after))
        if number == 0 or draw(st.booleans()):
            evidence.append(Span(own, len(before), len(before) + len(answer)))
    task = draw(st.sampled_from(["mdqa", "musique", "needle", "summhay"]))
    cited = tuple(span.document for span in evidence)
    return Example(
        draw(name),
        task,
        tuple(documents),
        draw(name),
        cited if task == "summhay" else (answer, *draw(st.lists(name, max_size=2))),
        tuple(evidence),
        draw(st.dictionaries(st.sampled_from(["hop_answers", "avoid"]), st.lists(name, min_size=1)))
        | {"level": draw(st.integers() | st.floats(allow_nan=False, allow_infinity=False))},
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(examples())
def test_an_example_comes_back_as_it_went_out(example):
    example.check()
    assert Example.from_json(example.to_json()) == example
    for ascii_only in (False, True):
        line = json.dumps(example.to_json(), ensure_ascii=ascii_only).encode()
        assert Example.from_json(json.loads(line)) == example


PROSE = st.lists(
    st.sampled_from(
        "Rome rome Bo B J Dr St. i.e. U.S. 1901 é e\u0301 ß İ ﬁ ½ 😀 . . ! ? … , ' \" “ ” ( ) [1] "
        "\u200b \ufeff \0".split(" ")
    )
    | st.sampled_from([" ", " ", "\n", "\n\n", "\r\n", "\t", "\x1c", "\x85", "\xa0", "\u2028"])
    | st.characters(exclude_categories=["Cs"]),
    max_size=40,
).map("".join)


@pytest.mark.parametrize("window", [7, 10_000])
@settings(max_examples=200, deadline=None, derandomize=True)
@given(prose=PROSE)
def test_sentences_are_in_order_within_the_text_and_leave_out_white_space_alone(window, prose):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_WINDOW", window)
        spans = sentence_spans(prose)
    end = 0
    for start, stop in spans:
        assert end <= start < stop <= len(prose)
        assert prose[start:stop] == prose[start:stop].strip()
        assert not prose[end:start].strip()
        end = stop
    assert not prose[end:].strip()


def test_sentences_are_the_same_whether_or_not_the_text_is_read_in_windows(monkeypatch):
    file = ROOT / "sce" / "data" / "sample" / "train.jsonl"
    prose = " ".join(
        document.text for example in read_questions(str(file)) for document in example.documents
    )
    spans = sentence_spans(prose)
    assert len(prose) > 90_000
    monkeypatch.setattr(text, "_WINDOW", len(prose))
    assert sentence_spans(prose) == spans


@settings(max_examples=200, deadline=None, derandomize=True)
@given(prose=PROSE, answer=PROSE | st.sampled_from(["Rome", "rome bo", " ", ".", ""]))
def test_occurrences_are_in_order_within_the_text_and_say_the_answer(prose, answer):
    for loosely in (False, True):
        found = occurrences(prose, answer, loosely=loosely)
        end = 0
        for start, stop in found:
            assert end <= start < stop <= len(prose)
            assert loosely or prose[start:stop] == answer
            end = stop
        assert loosely or bool(found) == (bool(answer) and answer in prose)
        assert not found or not loosely or holds_answer(prose[found[0][0] :], (answer,))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(prose=PROSE, data=st.data())
def test_sentences_that_hold_spans_are_sentences_and_cover_them(prose, data):
    cuts = st.integers(0, len(prose))
    spans = data.draw(st.lists(st.tuples(cuts, cuts).map(sorted).map(tuple), max_size=4))
    holding = sentences_holding(prose, spans)
    assert holding == sorted(set(holding))
    sentences = sentence_spans(prose)
    for start, stop in holding:
        assert start in [s for s, _ in sentences]
        assert stop in [e for _, e in sentences]
    for start, stop in spans:
        if prose[start:stop].strip():
            first = start + len(prose[start:stop]) - len(prose[start:stop].lstrip())
            last = start + len(prose[start:stop].rstrip())
            assert any(a <= first and last <= b for a, b in holding)
    # Slowly and plainly, the same.
    touched = [[(a, b) for a, b in sentences if a < stop and start < b] for start, stop in spans]
    assert holding == sorted({(t[0][0], t[-1][1]) for t in touched if t})


@pytest.mark.parametrize("mark", ["“", "«", "'a' ", "(", "\N{NO-BREAK SPACE}.", "Rome is old. "])
def test_a_long_text_takes_no_time_quadratic_in_its_length(mark):
    def seconds(length: int) -> float:
        prose = (mark * length)[:length]
        start = time.process_time()
        sentence_spans(prose)
        sentences_holding(prose, occurrences(prose, mark.strip()[:4])[: length // 5])
        return time.process_time() - start

    # 16 times as long: 256 times the time were it quadratic.
    assert min(seconds(160_000) for _ in range(2)) < 64 * min(seconds(10_000) for _ in range(5))
