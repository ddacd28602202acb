"""python -m sce.write: requests, cache, checks, counts and errors, against a server on loopback."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ROOT
from fake_llm import FILLER, FakeLLM, asked, completion, good_text
from runs import configured
from sce import passages
from sce.data.example import Example
from sce.errors import InputError
from sce.passages import Fact, Names, Passage, fact_of, passage
from sce.write import table, write
from sce.write_options import WriteConfig
from sce.writing import FAILURES_IN_A_ROW, opened_cache

KEY = "sk-a-secret-that-nobody-may-see"
SMALL = ("llm=fake", "words=60", "num_documents=6", "max_retries=1")
FACT = Fact(
    "river", "Velmor", "river.source", "The Velmor rises in Ax.", "source of velmor", "Axwick"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_LOG", raising=False)


def configuration(server, *overrides):
    return configured("write", WriteConfig, [*SMALL, f"base_url={server.url}", *overrides])


def wrote(server, *overrides):
    return write(configuration(server, *overrides))


def command(server, *overrides, env=None, **more):
    """The command in a process of its own."""
    url = server if isinstance(server, str) else server.url
    return subprocess.run(
        [sys.executable, "-m", "sce.write", *SMALL, f"base_url={url}", *overrides],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        **more,
    )


def examples(name="written.jsonl"):
    content = Path(name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    return [Example.from_json(json.loads(line)) for line in text.decode().splitlines()]


# What a passage must be.


def passage_of(sentence: str) -> str:
    return f"{FILLER} {sentence} {FILLER}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (passage_of("The Velmor rises near Axwick in the hills."), None),
        ("<think>Axwick? Axwick!</think>\n" + passage_of("The Velmor rises near Axwick."), None),
        (passage_of("The Velmor rises near Axwick, and Axwick it is."), None),
        (passage_of("The river rises near Axwick."), passages.NO_SUBJECT),
        (passage_of("The velmor rises near Axwick."), passages.NO_SUBJECT),
        (passage_of("The Velmorian hills rise near Axwick."), passages.NO_SUBJECT),
        (passage_of("The Velmor rises in the hills."), passages.NO_ANSWER),
        (passage_of("The Velmor rises near Axwicks."), passages.NO_ANSWER),
        (passage_of("The Velmor rises near Axwick. Axwick is old."), passages.TWICE),
        (passage_of("The Velmor rises near Axwick. In AXWICK it rains."), passages.TWICE),
        ("The Velmor rises near Axwick.", passages.SHORT),
        ("", passages.SHORT),
        (passage_of("The Velmor rises near Axwick.") + f" {FILLER}" * 5, passages.LONG),
        (passage_of("The **Velmor** rises near Axwick."), passages.MARKUP),
        ("# Velmor\n" + passage_of("The Velmor rises near Axwick."), passages.MARKUP),
        ("- " + passage_of("The Velmor rises near Axwick."), passages.MARKUP),
    ],
)
def test_a_passage_is_taken_or_has_one_reason_not_to_be(text, reason):
    found = passage(text, FACT, (12, 40))
    if reason is not None:
        assert found == reason
        return
    assert isinstance(found, Passage)
    assert found.text[found.start : found.end].startswith("The Velmor rises near Axwick")


def test_line_breaks_become_spaces_and_the_evidence_is_the_one_sentence():
    found = passage(f"{FILLER}\n\nThe Velmor rises\nnear Axwick. {FILLER}", FACT, (1, 99))
    assert isinstance(found, Passage)
    assert found.text == f"{FILLER} The Velmor rises near Axwick. {FILLER}"
    assert found.text[found.start : found.end] == "The Velmor rises near Axwick."


def test_names_of_other_items_are_leaks_and_shared_values_are_not():
    other = replace(FACT, name="Tam Brosk", answer="1764")
    third = replace(FACT, name="Fen Ostwick", answer="Ull Trust")
    names = Names([FACT, other, third])
    assert names.taken == ()
    assert names.leak("He met tam  brosk there.", 0)
    assert names.leak("It belongs to the Ull Trust.", 0)
    assert not names.leak("It belongs to the Ull Trust of Fen Ostwick.", 2)
    assert not names.leak("In 1764 a trust was founded in Ostwick by Tam.", 0)
    assert not names.leak("Velmorian", 1)


@pytest.mark.parametrize("name", ["Velmor", "Velmor Hall", "Axwick"])
def test_an_item_that_shares_a_name_with_an_earlier_one_is_left_out(name):
    first = replace(FACT, name="Ann Velmor Hall") if name == "Velmor Hall" else FACT
    names = Names([first, replace(FACT, name=name, answer="1764")])
    assert names.taken == (1,)
    assert not names.leak(f"The {first.name} rises near Axwick.", 0)


def test_item_i_depends_on_seed_and_i_alone():
    assert [fact_of(3, i) for i in range(4)] == [fact_of(3, i) for i in range(9)][:4]
    assert fact_of(3, 1) != fact_of(4, 1)
    for i in range(200):
        fact = fact_of(0, i)
        assert fact.name in fact.sentence
        assert fact.answer in fact.sentence
        name, answer = asked(passages.prompt(fact, 100))
        assert (name, answer) == (fact.name, fact.answer)


# What is written.


def test_all_is_written_read_back_and_counted():
    with FakeLLM() as server:
        counts = wrote(server, "price_input=2", "price_output=10")
        assert server.num_gets == 1
        assert set(server.keys) == {"Bearer none"}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 0.8, 1024)
    assert (counts.accepted, counts.answered, counts.cached) == (6, 6, 0)
    assert (counts.prompt_tokens, counts.completion_tokens) == (600, 120)
    found = examples()
    assert [e.id for e in found] == [f"written-0-{i}" for i in range(6)]
    for index, e in enumerate(found):
        fact = fact_of(0, index)
        assert (e.task, e.question, e.answers) == ("mdqa", fact.question, (fact.answer,))
        assert (e.documents[0].id, e.documents[0].title) == ("gold", fact.name)
        assert e.evidence_texts() == [
            f"The records of {fact.name} give it as {fact.answer} without a doubt."
        ]
        expected = {"writer": "llm", "model": "fake", "relation": fact.relation, "attempt": 1}
        assert e.meta == expected


def test_the_file_is_the_same_whatever_is_answered_first():
    gate = threading.Barrier(3, timeout=20)

    def act(prompt, n):
        gate.wait()  # breaks, and fails the test, if fewer than three are under way at once
        time.sleep(0.05)  # for a fourth to come, if there were one
        return good_text(prompt) if n else "no"

    with FakeLLM(act) as server:
        wrote(server, "concurrency=3", "out=a.jsonl.gz", "cache=a")
    assert server.most_at_once == 3
    with FakeLLM(lambda prompt, n: good_text(prompt) if n else "no") as server:
        wrote(server, "concurrency=1", "out=b.jsonl.gz", "cache=b")
    assert server.most_at_once == 1
    assert Path("a.jsonl.gz").read_bytes() == Path("b.jsonl.gz").read_bytes()
    assert [e.meta["attempt"] for e in examples("a.jsonl.gz")] == [2] * 6


def test_a_second_run_asks_for_nothing_and_other_options_ask_anew():
    with FakeLLM(lambda prompt, n: good_text(prompt) if n else "no") as server:
        first = wrote(server)
        num_requests, num_gets = len(server.prompts), server.num_gets
        again = wrote(server, "out=again.jsonl")
        assert (len(server.prompts), server.num_gets) == (num_requests, num_gets) == (12, 1)
        assert (again.answered, again.cached, again.prompt_tokens) == (0, 12, 0)
        assert again.rejected == first.rejected == Counter({passages.SHORT: 6})
        assert examples("again.jsonl") == examples()
        longer = wrote(server, "num_documents=8", "out=longer.jsonl")
        assert (longer.cached, longer.answered) == (12, 4)
        assert examples("longer.jsonl")[:6] == examples()
        for n, option in enumerate(["temperature=0.5", "+extra_body.top_k=9", "llm=other"]):
            assert wrote(server, option, f"out={n}.jsonl").cached == 0
    assert server.bodies[-1]["model"] == "other"
    assert any(body.get("top_k") == 9 for body in server.bodies)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    with FakeLLM() as server:
        stop = passages.prompt(fact_of(0, 3), 60)
        server.act = lambda prompt, n: "hang" if (prompt, n) == (stop, 0) else good_text(prompt)
        arguments = [*SMALL, f"base_url={server.url}", "concurrency=1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "sce.write", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        assert server.hangs.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [f.name for f in tmp_path.iterdir()] == ["runs"]
        counts = wrote(server, "concurrency=1")
    assert (counts.cached, counts.answered) == (3, 3)
    assert len(examples()) == 6
    assert set(Counter(server.prompts).values()) == {1, 2}
    assert Counter(server.prompts)[stop] == 2


# What goes wrong.


def test_rejects_are_counted_by_reason_asked_again_and_given_up():
    other = fact_of(0, 5).name
    bad = {
        0: completion(good_text(passages.prompt(fact_of(0, 0), 60)), "length"),
        1: "Too short.",
        2: " ".join([FILLER] * 7),
        3: good_text(passages.prompt(fact_of(0, 3), 60)) + f" It is not {other}.",
        4: good_text(passages.prompt(fact_of(0, 4), 60)) * 3,
    }
    index = {fact_of(0, i).name: i for i in range(6)}

    def act(prompt, n):
        i = index[asked(prompt)[0]]
        return bad[i] if i in bad and (n == 0 or i == 1) else good_text(prompt)

    with FakeLLM(act) as server:
        counts = wrote(server, "attempts=3")
    assert counts.rejected == Counter(
        {
            passages.SHORT: 3,
            passages.CUT: 1,
            passages.NO_SUBJECT: 1,
            passages.LEAK: 1,
            passages.LONG: 1,
        }
    )
    assert (counts.accepted, counts.given_up, counts.done) == (5, 1, 6)
    assert sum("could not be used: too short." in prompt for prompt in server.prompts) == 2
    assert [(e.id[-1], e.meta["attempt"]) for e in examples()] == [
        *(("0", 2), ("2", 2), ("3", 2), ("4", 2), ("5", 1))
    ]
    assert not any(fact_of(0, 5).name in e.documents[0].text for e in examples()[:-1])
    shown = table(configuration(server), counts)
    for line in ("accepted +5", "given up after the last attempt +1", "too short +3"):
        assert re.search(line, shown)


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (429, "HTTP 429"),
        (500, "HTTP 500"),
        ("cut", "connection broken"),
        ("hang", "timed out"),
        (b"{nonsense", "an answer that is no JSON"),
        (b'{"error": "busy"}', "an answer that is no chat completion"),
        (b'{"choices": []}', "an answer that is no chat completion"),
        (b"[]", "an answer that is no chat completion"),
    ],
)
def test_a_failed_request_is_sent_again_or_counted_and_never_kept(act, what):
    bad = {passages.prompt(fact_of(0, 1), 60)}
    again = isinstance(act, int) or act in ("cut", "hang")

    def once(prompt, n):
        return act if n == 0 and prompt in bad else good_text(prompt)

    def always(prompt, n):
        return act if prompt in bad else good_text(prompt)

    with FakeLLM(always) as server:
        options = ("num_documents=3", "timeout_seconds=1.5" if act == "hang" else "seed=0")
        counts = wrote(server, *options)
        assert counts.failed == Counter({what: 1})
        assert (counts.accepted, counts.given_up) == (2, 0)
        assert Counter(server.prompts)[next(iter(bad))] == 1 + again
        server.act = lambda prompt, n: good_text(prompt)
        counts = wrote(server, *options, "overwrite=true")
        assert (counts.accepted, counts.cached, counts.answered) == (3, 2, 1)
    with FakeLLM(once) as server:
        counts = wrote(server, *options, "out=once.jsonl")
    assert counts.accepted == (3 if again else 2)
    assert examples("once.jsonl") == [e for e in examples() if again or e.id[-1] != "1"]


def test_a_server_that_only_fails_is_left_alone_after_some_requests():
    with (
        FakeLLM(lambda prompt, n: 500) as server,
        pytest.raises(
            InputError, match=r"requests in a row failed, the last: HTTP 500; .* goes on"
        ),
    ):
        wrote(server, "num_documents=90", "max_retries=0")
    assert FAILURES_IN_A_ROW <= len(server.prompts) < FAILURES_IN_A_ROW + 4


def test_an_option_the_server_lacks_is_named_in_its_own_words():
    with FakeLLM(lambda prompt, n: 400) as server:
        result = command(server, "num_documents=2")
    assert result.returncode == 2
    assert "HTTP 400: " in result.stderr
    assert "no: Write one passage" in result.stderr


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "asks for a key (401): put a valid one into the environment variable OPENAI_API_KEY"),
        (403, "asks for a key (403)"),
        (404, "has no such path or no model fake (404): base_url often ends in /v1"),
    ],
)
def test_a_refusal_is_one_line_at_once(status, message):
    with FakeLLM(lambda prompt, n: status) as server:
        result = command(server, "num_documents=50")
    assert result.returncode == 2
    assert result.stderr.startswith(f"sce: base_url={server.url} {message}")
    assert result.stderr.count("\n") == 1
    assert len(server.prompts) <= 4


def test_a_server_that_is_not_there_is_one_line_at_once():
    with FakeLLM() as server:
        url = server.url
    result = command(url, "num_documents=1000", "max_retries=50")
    assert result.returncode == 2
    assert result.stderr.startswith(f"sce: base_url={url} cannot be reached (")
    assert "start the server" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_without_one_accepted_document_is_an_error_with_the_reasons(tmp_path):
    with FakeLLM(lambda prompt, n: "I cannot do that.") as server:
        result = command(server, "attempts=2", "price_input=1", "price_output=1")
    assert result.returncode == 2
    *shown, last = result.stderr.strip().splitlines()
    assert last.startswith("sce: none of 6 documents was accepted (1,440 tokens, cost 0.0014)")
    assert "most were rejected for: too short" in last
    assert any(re.search(r"too short +12\s*$", line) for line in shown)
    assert not (tmp_path / "written.jsonl").exists()


def test_fewer_than_all_is_said_plainly_and_is_no_error():
    few = {fact_of(0, i).name for i in (0, 1)}

    def act(prompt, n):
        return "No." if asked(prompt)[0] in few else good_text(prompt)

    with FakeLLM(act) as server:
        result = command(server, "attempts=2")
    assert result.returncode == 0
    *_, plain, last = result.stderr.strip().splitlines()
    assert plain.startswith("NOT ALL: 2 of 6 documents are missing; most were rejected for: too")
    assert last == "wrote written.jsonl: 4 documents, 960 tokens"
    assert "6 of 6 through, 4 accepted, 960 tokens" in result.stderr
    assert len(examples()) == 4


def test_files_are_not_written_over_unless_asked_to(tmp_path):
    (tmp_path / "written.jsonl").write_text("mine")
    with FakeLLM() as server:
        with pytest.raises(InputError, match=r"written\.jsonl exists; .*overwrite=true"):
            wrote(server)
        assert not server.prompts
        wrote(server, "overwrite=true", "num_documents=1")
        with pytest.raises(InputError, match="is a folder"):
            wrote(server, "out=.")
    assert len(examples()) == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["runs", "written.jsonl"]


@pytest.mark.parametrize("package", ["openai", "diskcache"])
def test_a_missing_package_is_one_line_that_installs_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with (
        FakeLLM() as server,
        pytest.raises(InputError, match=rf"{package} is not installed: pip install 'sce\[write\]'"),
    ):
        wrote(server)


def test_a_folder_that_can_be_no_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with FakeLLM() as server, pytest.raises(InputError, match="cache=file/x cannot be used"):
        wrote(server, "cache=file/x")


def test_the_commands_in_the_docs_name_options_that_exist():
    text = (ROOT / "docs" / "write.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ {4}python -m sce\.write(.*)$", text, re.MULTILINE)
    assert len(commands) == 3
    more = re.findall(r"`([^`]*extra_body\.[^`]*)`", text)
    assert len(more) == 2
    for rest in (*commands, *(f"llm=x {options}" for options in more)):
        assert configured("write", WriteConfig, rest.split()).llm


# The key.


@pytest.mark.parametrize("kind", ["echoed", "refused", "rejected request", "debug"])
def test_the_key_is_sent_and_stands_in_nothing_that_is_left(kind, tmp_path):
    acts = {
        "echoed": lambda prompt, n: good_text(prompt) + f" Bearer {KEY}.",
        "refused": lambda prompt, n: 401,
        "rejected request": lambda prompt, n: 400,
        "debug": lambda prompt, n: 403,
    }
    options = ["api_key_env=MY_KEY", *(["debug=true"] if kind == "debug" else [])]
    with FakeLLM(acts[kind]) as server:
        env = {"MY_KEY": KEY, "OPENAI_LOG": "debug"}
        results = [command(server, *options, env=env)]
        results.append(command(server, *options, "--cfg", "job", env=env))
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert results[0].returncode == {"echoed": 0, "debug": 1}.get(kind, 2)
    for result in results:
        assert KEY not in result.stdout + result.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(KEY.encode() in file.read_bytes() for file in files)
    with opened_cache("runs/write-cache") as cache:
        kept = [(key, cache[key]) for key in cache]
    assert len(kept) == (6 if kind == "echoed" else 0)
    assert KEY not in repr(kept)


def test_a_key_that_cannot_be_one_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two words")
    with FakeLLM() as server, pytest.raises(InputError) as caught:
        wrote(server)
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("llm=", "llm=NAME: name the model"),
        (f"api_key_env={KEY}", "must be the name of an environment variable"),
        (f"base_url=http://me:{KEY}@host/v1", "without a name or password in it"),
        ("base_url=localhost:8000", "base_url must look like http://HOST:PORT/v1"),
        ("price_input=1", "give both or neither"),
        ("concurrency=0", "concurrency must be >= 1, got 0"),
        ("min_words=200", "min_words..max_words must be a range, got 200..120"),
        ("timeout_seconds=0", "timeout_seconds must be > 0"),
    ],
)
def test_a_wrong_option_is_one_line(override, message):
    with FakeLLM() as server, pytest.raises(InputError) as caught:
        wrote(server, override)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
