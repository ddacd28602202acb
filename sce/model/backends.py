"""What the device has for a run: its attention backend, and why no better one; bfloat16 or not."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sce.errors import InputError

# Backend -> the name it is registered under. Without "flash" in it (transformers takes such names
# for kernels that it has to load itself) and without "sdpa" (it refuses such names for models that
# cap their logits or have sinks, which are worked out explicitly here).
IMPLEMENTATIONS = {
    "sdpa": "sce_fused",
    "eager": "sce_eager",
    "flash_attention_2": "sce_fa2",
    "flash_attention_3": "sce_fa3",
    "flash_attention_4": "sce_fa4",
}


@dataclass(frozen=True)
class _Flash:
    """What a version of flash-attn needs."""

    module: str
    package: str
    capabilities: tuple[int, ...]
    """Major compute capabilities that it has kernels for."""


# Best first.
FLASH = {
    "flash_attention_4": _Flash("flash_attn.cute", "flash-attn-4", (9, 10)),
    "flash_attention_3": _Flash("flash_attn_interface", "flash-attn-3", (9,)),
    "flash_attention_2": _Flash("flash_attn", "flash-attn", (8, 9, 10, 12)),
}


def best_device() -> torch.device:
    """Where a command that is no training run computes: on the first GPU, or on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fused_kernels(query: Tensor, *, masked: bool) -> AbstractContextManager[Any]:
    """SDPA's kernels on a GPU, best first; the last, which makes the whole matrix, where none can.

    Masked rows are worked out in chunks of ever new shapes, for each of which cuDNN would make a
    plan first.
    """
    if not query.is_cuda:
        return nullcontext()
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    order.insert(len(order) if masked else 0, SDPBackend.CUDNN_ATTENTION)
    return sdpa_kernel([*order, SDPBackend.MATH], set_priority=True)


@dataclass(frozen=True)
class Choice:
    """The attention backend of a run and why it was taken."""

    backend: str
    reason: str
    emulated: bool = False
    """Whether the device has no instructions for the base model's dtype."""

    @property
    def implementation(self) -> str:
        """The name transformers knows it by."""
        return IMPLEMENTATIONS[self.backend]

    @property
    def lines(self) -> list[str]:
        """What is said of it before a run."""
        lines = [f"attention  {self.backend} ({self.reason})"]
        if self.emulated:
            instead = "products in float32, rounded"
            lines.append(f"dtype      this CPU has no instructions for bfloat16: {instead}")
        return lines


def choose(wanted: str, *, on_gpu: bool, dtype: str) -> Choice:
    """Pick the backend: `auto` takes the newest flash-attn that is installed and usable, else SDPA.

    Args:
        wanted: auto, or a backend.
        on_gpu: whether the model will run on a GPU.
        dtype: of the base model; flash-attn has no float32.

    Raises:
        InputError: a backend that is unknown, or that this run cannot use.
    """
    emulated = dtype == "bfloat16" and not on_gpu and emulates_bfloat16()
    return replace(_backend(wanted, on_gpu, dtype), emulated=emulated)


def _backend(wanted: str, on_gpu: bool, dtype: str) -> Choice:
    if wanted == "auto":
        reasons = []
        for backend in FLASH:
            lacking = _lacking(backend, on_gpu, dtype)
            if lacking is None:
                why = f", {'; '.join(reasons)}" if reasons else ""
                return Choice(backend, f"auto: installed, and there is a GPU{why}")
            reasons.append(f"version {backend[-1]} needs {lacking}")
        if not on_gpu or dtype == "float32":  # the same for all
            reasons = [f"it needs {_lacking('flash_attention_2', on_gpu, dtype)}"]
        return Choice("sdpa", f"auto: no flash-attn, {'; '.join(reasons)}")
    if wanted not in IMPLEMENTATIONS:
        raise InputError(f"attention={wanted}: choose from auto, {', '.join(IMPLEMENTATIONS)}")
    lacking = _lacking(wanted, on_gpu, dtype) if wanted in FLASH else None
    if lacking is not None:
        raise InputError(f"attention={wanted} needs {lacking}; use attention=auto")
    return Choice(wanted, "as asked for")


def emulates_bfloat16() -> bool:
    """Whether this CPU has no instructions for bfloat16; False where that is not known.

    It is known of x86-64 alone, and by torch's recent versions.
    """
    known = getattr(torch.cpu, "get_capabilities", dict)()
    has = any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return known.get("architecture") == "x86_64" and not has


def _lacking(backend: str, on_gpu: bool, dtype: str) -> str | None:
    """What a flash backend needs and this run does not have; None if nothing."""
    needs = FLASH[backend]
    if not on_gpu:
        return "a GPU, and this run is on the CPU"
    if dtype == "float32":
        return "model.dtype=bfloat16"
    if not _installed(needs):
        return f"the package {needs.package}"
    major = torch.cuda.get_device_capability()[0]
    if major not in needs.capabilities:
        known = " or ".join(f"{n}.x" for n in needs.capabilities)
        return f"a GPU of compute capability {known}, and this one is {major}.x"
    return _failure(needs)


def _installed(needs: _Flash) -> bool:
    try:
        if find_spec(needs.module) is None:
            return False
    except ModuleNotFoundError:  # of flash_attn.cute where there is no flash_attn
        return False
    except Exception:  # it is there; what is wrong with it is told when it is imported
        return True
    # Versions 2 and 4 both install `flash_attn`; transformers tells them apart by this name.
    packages = packages_distributions().get(needs.module.split(".")[0], [needs.package])
    return needs.package in [package.replace("_", "-") for package in packages]


def _failure(needs: _Flash) -> str | None:
    """What a package that is installed fails with; a wheel for another torch or CUDA does."""
    try:
        import_module(needs.module)
    except Exception as error:  # extensions raise whatever their loaders do
        line = " ".join(str(error).split())[:160]
        return f"a {needs.package} that loads ({type(error).__name__}: {line})"
    return None
