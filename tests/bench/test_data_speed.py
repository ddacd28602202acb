"""Speed and size of building data: `make bench`, with nothing else running.

Prompt tokens a second on one core, with the documents' own ids cached, beside the tokenizer's own
speed on the same prompts; and peak memory for few and for many examples.
"""

import json
import subprocess
import sys
import time

import pytest

from conftest import SHARED_DATA
from sce.data.encode import Encoder
from sce.data.plan import plan_splits
from sce.data.recipe import Recipe
from sce.data_options import DataOptions

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

NQ = SHARED_DATA / "nq-open-oracle.jsonl.gz"
CELLS = [
    ("mdqa", "real", "real"),
    ("mdqa", "high", "high"),
    ("mdqa", "low", "low"),
    ("mdqa", "symbolic", "symbolic"),
    ("mdqa", "low_entity", "real"),
    ("musique", "high", "high"),
    ("summhay", "high", "high"),
]


def recipe(tokenizer, task, concept, context, tokens, count) -> tuple[Recipe, Encoder]:
    encoder = Encoder(tokenizer)
    options = DataOptions(
        task=task, concept=concept, context=context, num_train=count, num_documents=None
    )
    options.context_tokens = tokens
    if context == "real":
        options.train.path = str(NQ)
    return plan_splits(options, encoder, 0, ["train"]).recipes["train"], encoder


def rate(made: Recipe, encoder: Encoder, first: int, last: int) -> float:
    """Prompt tokens a second."""
    tokens, started = 0, time.perf_counter()
    for index in range(first, last):
        tokens += len(encoder.encode(made.example(index)).prompt_ids)
    return tokens / (time.perf_counter() - started)


def test_prompt_tokens_a_second_at_32k(real_tokenizer):
    if not NQ.is_file():
        pytest.skip("no ../shared/data")
    print("\nprompts of 32,768 tokens, millions of prompt tokens a second on one core")
    print(f"{'cell':32} {'cached':>8} {'first time':>11} {'tokenizer':>10} {'ratio':>6}")
    rows = []
    for task, concept, context in CELLS:
        made, encoder = recipe(real_tokenizer, task, concept, context, 32_768, 80)
        first = rate(made, encoder, 0, 40)
        cached = rate(made, encoder, 40, 80)
        text = encoder.prompt(made.example(79))
        started = time.perf_counter()
        count = len(real_tokenizer(text, add_special_tokens=False)["input_ids"])
        own = count / (time.perf_counter() - started)
        cell = f"{task}: {concept} in {context}"
        speeds = f"{cached / 1e6:8.2f} {first / 1e6:11.2f} {own / 1e6:10.2f}"
        print(f"{cell:32} {speeds} {cached / own:6.1f}")
        rows.append({"cell": cell, "cached": cached, "first": first, "tokenizer": own})
    print(json.dumps(rows))


@pytest.mark.parametrize("tokens", [131_072, 1_000_000])
def test_very_long_examples(real_tokenizer, tokens):
    for concept in ("high", "low"):
        made, encoder = recipe(real_tokenizer, "mdqa", concept, concept, tokens, 3)
        started = time.perf_counter()
        encoded = encoder.encode(made.example(0))
        seconds = time.perf_counter() - started
        print(f"\n{concept} in {concept}: {len(encoded.prompt_ids):,} tokens in {seconds:.1f} s")
        assert tokens - 1000 < len(encoded.prompt_ids) <= tokens


# Anonymous memory of the builder and its processes: pages of the mapped Arrow files are for the
# kernel to drop, and count as resident nevertheless.
_BUILD = """
import os, sys, tempfile, threading, time
from pathlib import Path
from sce.data.build import build_missing, open_splits
from sce.data.encode import Encoder
from sce.data.plan import plan_splits
from sce.data_options import DataOptions
from sce.model.source import find, load_tokenizer
from sce.options import ModelOptions
count, workers = int(sys.argv[1]), int(sys.argv[2])
encoder = Encoder(load_tokenizer(find(ModelOptions())))
options = DataOptions(concept="high", context="high", num_documents=None, context_tokens=32768,
                      num_train=count, num_workers=workers)
plan = plan_splits(options, encoder, 0, ["train"])

def anonymous(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while not done.wait(0.05):
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        peaks.append(max(anonymous(pid) for pid in (os.getpid(), *children)))

done, peaks = threading.Event(), []
watcher = threading.Thread(target=watch)
watcher.start()
with tempfile.TemporaryDirectory() as folder:
    started = time.perf_counter()
    split = open_splits(build_missing(plan, encoder, out=Path(folder)))[0]["train"]
    seconds = time.perf_counter() - started
    for encoded in split.encoded:
        pass
    size = sum(f.stat().st_size for f in Path(folder).rglob("*.arrow")) / 2**20
done.set()
watcher.join()
print(f"{count} {seconds:.1f} {max(peaks) / 1024:.0f} {size:.0f}")
"""


def test_peak_memory_does_not_grow_with_the_number_of_examples():
    head = ("examples", "seconds", "peak MiB", "Arrow MiB")
    print("\n{:>9} {:>8} {:>9} {:>10}   (two processes)".format(*head))
    peaks = []
    for count in (512, 1024, 4096):
        result = subprocess.run(
            [sys.executable, "-c", _BUILD, str(count), "2"],
            capture_output=True,
            text=True,
            check=True,
        )
        numbers = result.stdout.split()[-4:]
        print("{:>9} {:>8} {:>9} {:>10}".format(*numbers))
        peaks.append(float(numbers[2]))
    assert peaks[-1] < 1.25 * peaks[0]  # the ids of the pool's documents are all cached later on
