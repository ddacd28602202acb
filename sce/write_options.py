"""The root configuration of python -m sce.write, typed. Knows neither Hydra nor torch."""

import re
from dataclasses import dataclass, field
from typing import Any

from sce.options import require


@dataclass
class WriteConfig:
    """python -m sce.write."""

    llm: str = ""
    """The model's name, as the server knows it."""
    base_url: str = "http://localhost:8000/v1"
    """Root of an OpenAI-compatible API."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; where it is unset, "none" is sent."""
    num_documents: int = 100
    seed: int = 0
    words: int = 100
    """Words a document is asked to have, about."""
    min_words: int | None = None
    """Words a document must have; None: half of `words`."""
    max_words: int | None = None
    """Words a document may have; None: twice `words`."""
    attempts: int = 4
    """Answers looked at for one document at most; at temperature 0 they are all alike."""
    temperature: float | None = 0.8
    """None here and below: not sent, so the server's own."""
    top_p: float | None = None
    max_tokens: int | None = 1024
    """Tokens of an answer at most."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields of the request, for servers that know more."""
    concurrency: int = 4
    """Requests under way at once at most."""
    timeout_seconds: float = 120.0
    """Of one request."""
    max_retries: int = 5
    """Times a request is sent again when it fails, with back-off."""
    price_input: float | None = None
    """Price of a million prompt tokens; None: cost is not shown."""
    price_output: float | None = None
    """Price of a million answer tokens."""
    cache: str = "runs/write-cache"
    """Folder of all answers so far: what is in it is not asked again."""
    out: str = "written.jsonl"
    """Example JSONL, gzipped where the name ends in .gz."""
    overwrite: bool = False
    """Replace `out` where it exists."""
    debug: bool = False

    def __post_init__(self) -> None:
        require(bool(self.llm), "llm=NAME: name the model, as the server knows it")
        require(
            re.match(r"https?://[^/@\s]+(/[^@\s]*)?$", self.base_url) is not None,
            "base_url must look like http://HOST:PORT/v1, without a name or password in it",
        )
        # Whoever puts the key itself here must not find it in an error message.
        require(
            re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII) is not None,
            "api_key_env must be the name of an environment variable, not the key",
        )
        for name in ("num_documents", "words", "attempts", "concurrency", "max_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be >= 1, got {value}")
        for name in ("seed", "max_retries", "temperature", "price_input", "price_output"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be >= 0, got {value}")
        require(
            self.timeout_seconds > 0, f"timeout_seconds must be > 0, got {self.timeout_seconds}"
        )
        low, high = self.word_limits()
        require(1 <= low <= high, f"min_words..max_words must be a range, got {low}..{high}")
        require(
            (self.price_input is None) == (self.price_output is None),
            "price_input and price_output: give both or neither",
        )

    def word_limits(self) -> tuple[int, int]:
        """Words a document must and may have."""
        low = (self.words + 1) // 2 if self.min_words is None else self.min_words
        return low, 2 * self.words if self.max_words is None else self.max_words
