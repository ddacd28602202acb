"""Where a model's files are, which model it is, and its config and tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from sce.errors import InputError
from sce.model.weights import converted_gguf, packaged_gguf, weights_sha256
from sce.options import ModelOptions

OUTSIDE = (
    "its attention does not go through transformers' AttentionInterface, so its heads cannot be "
    "read; use an architecture whose attention can be set by attn_implementation"
)


@dataclass(frozen=True)
class Source:
    """Where a model's files are, and which model it is."""

    name: str
    """What the user asked for."""
    location: str
    """Local folder or hub id, for from_pretrained."""
    revision: str | None

    @cached_property
    def folder(self) -> Path:
        """The local folder of the files; a hub id's are downloaded."""
        if Path(self.location).is_dir():
            return Path(self.location)
        with explained(self, "weights"):
            patterns = ["model*.safetensors", "*.json", "tokenizer*", "*.jinja"]
            found = snapshot_download(
                self.location, revision=self.revision, allow_patterns=patterns
            )
        return Path(found)

    @cached_property
    def sha256(self) -> str:
        """Identity of the weights."""
        return weights_sha256(self.folder)


def find(options: ModelOptions) -> Source:
    """Resolve `model.name_or_path`; GGUF files are converted on first use.

    Raises:
        InputError: a local path or package that is not there.
    """
    name = options.name_or_path
    if name.startswith("package:"):
        return Source(name, str(converted_gguf(packaged_gguf(name.removeprefix("package:")))), None)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model.name_or_path={name}: no such file")
        return Source(name, str(converted_gguf(path)), None)
    if name.startswith(("/", ".", "~")) and not path.is_dir():
        raise InputError(f"model.name_or_path={name}: no such folder")
    return Source(name, str(path) if path.is_dir() else name, options.revision)


@contextmanager
def explained(source: Source, what: str) -> Iterator[None]:
    """Turn the hub's many errors into one line that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        text = " ".join(str(error).split())
        lower = text.lower()
        if "gated" in lower or "401" in lower or "403" in lower:
            advice = "it is gated: accept its licence on the hub and run `hf auth login`"
        elif "connect" in lower or "offline" in lower or "couldn't" in lower or "resolve" in lower:
            advice = "it is not on this machine and the hub cannot be reached; give a local folder"
        elif "sce_" in lower:  # a look-up of our implementation's name
            advice = OUTSIDE
        elif "attention implementation" in lower:
            advice = "it cannot run under this attention; use attention=eager, or flash on a GPU"
        elif "is not a local folder" in lower or "not a valid model identifier" in lower:
            advice = "no such model; give a hub id or a local folder"
        else:
            advice = text[:200]
        raise InputError(
            f"model.name_or_path={source.name}: its {what} cannot be loaded: {advice}"
        ) from error


def load_config(source: Source) -> PreTrainedConfig:
    """The model's config, from disk or the hub."""
    with explained(source, "config"):
        return AutoConfig.from_pretrained(source.location, revision=source.revision)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The model's tokenizer."""
    with explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.location, revision=source.revision)
