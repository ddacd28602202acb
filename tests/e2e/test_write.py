"""Documents asked of a real server with a real model: `transformers serve` on loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from conftest import ROOT
from sce.data.example import Example
from sce.data.text import holds_answer
from sce.passages import fact_of

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

# A model this small writes a sentence or two, so little is asked of it.
OPTIONS = (
    "num_documents=3",
    "words=40",
    "min_words=8",
    "max_words=100",
    "attempts=2",
    "max_tokens=100",
    "concurrency=1",
    "temperature=0.7",
)


@contextmanager
def served(folder):
    """The address of a server of the model in `folder`, on a free port, until the end."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["serve", str(folder), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", *arguments, "--host", "127.0.0.1"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "transformers serve has ended"
            with closing(socket.socket()) as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def write(folder, url, *more):
    return subprocess.run(
        [sys.executable, "-m", "sce.write", f"llm={folder}", f"base_url={url}", *OPTIONS, *more],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def number(table: str, label: str) -> int:
    found = re.search(rf"{label} +([\d,]+)\s*$", table, re.MULTILINE)
    assert found, table
    return int(found[1].replace(",", ""))


def test_a_real_server_is_asked_and_what_is_accepted_passes(real_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with served(real_source.location) as url:
        result = write(real_source.location, url)
    shown = result.stderr
    answers, accepted = number(shown, "answers of the server"), number(shown, "  accepted")
    assert 3 <= answers <= 6
    assert number(shown, "prompt tokens") > 100 * answers
    assert 0 < number(shown, "answer tokens") <= 100 * answers
    assert accepted + number(shown, "given up after the last attempt") == 3
    assert number(shown, "left out, their request failed") == 0
    out = tmp_path / "written.jsonl"
    # The server has gone, and all comes from the cache.
    again = write(real_source.location, url, "out=again.jsonl")
    assert again.returncode == result.returncode, again.stderr
    assert number(again.stderr, "answers from the cache") == answers
    if accepted == 0:
        assert result.returncode == 2
        assert shown.splitlines()[-1].startswith("sce: none of 3 documents was accepted")
        assert not out.exists()
        return
    assert result.returncode == 0
    rows = [Example.from_json(json.loads(line)) for line in out.read_text().splitlines()]
    assert len(rows) == accepted
    for row in rows:
        fact, text = fact_of(0, int(row.id.rpartition("-")[2])), row.documents[0].text
        assert fact.name in text
        assert 8 <= len(text.split()) <= 100
        (sentence,) = row.evidence_texts()
        assert fact.answer in sentence
        assert not holds_answer(text.replace(sentence, ""), (fact.answer,))
    assert (tmp_path / "again.jsonl").read_text() == out.read_text()
