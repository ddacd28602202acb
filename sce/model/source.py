"""Where a model's files are, which model it is, and its config and tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
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
    """Turn the hub's many errors, and files that are cut off, into one line that says what to do.

    Raises:
        InputError: the body failed.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise InputError(
            f"model.name_or_path={source.name}: its {what} cannot be loaded: {_advice(error)}"
        ) from error


_ADVICE = {
    GatedRepoError: "it is gated: accept its licence on the hub and run `hf auth login`",
    RevisionNotFoundError: "no such model.revision",
    (RepositoryNotFoundError, HFValidationError): "no such model; give a hub id or a local folder",
    (LocalEntryNotFoundError, ConnectionError): (
        "it is not on this machine and the hub cannot be reached; give a local folder"
    ),
    SafetensorError: "a file of it is damaged or was not copied whole",
}
"""What went wrong, the nearer kinds first, and what to do."""


def _advice(error: BaseException) -> str:
    """By the kinds of the errors behind it; transformers' own have none, but say something."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    codes = {each.response.status_code for each in causes if isinstance(each, HfHubHTTPError)}
    named = any(isinstance(each, (GatedRepoError, RepositoryNotFoundError)) for each in causes)
    if codes & {401, 403} and not named:
        return "the hub refuses the token that is given: run `hf auth login` again"
    for kinds, advice in _ADVICE.items():
        if any(isinstance(each, kinds) for each in causes):
            return advice
    text = " ".join(str(error).split())
    if "sce_" in text:  # a look-up of our implementation's name
        return OUTSIDE
    if "attention implementation" in text.lower():
        return "it cannot run under this attention; use attention=eager, or flash on a GPU"
    return text[:200]


def load_config(source: Source) -> PreTrainedConfig:
    """The model's config, from disk or the hub."""
    with explained(source, "config"):
        return AutoConfig.from_pretrained(source.location, revision=source.revision)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The model's tokenizer."""
    with explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.location, revision=source.revision)
