"""Answers of a language model behind an OpenAI-compatible server, every one kept on disk.

A request is known by the sha256 of all it says and its attempt number, so a run that was stopped
goes on where it was, and a second one asks for nothing. The door to openai and diskcache, which are
imported when they are used. Knows neither Hydra nor torch, nor what is asked for.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sce.errors import InputError

if TYPE_CHECKING:
    from sce.write_options import WriteConfig

FAILURES_IN_A_ROW = 10
"""With so many failed requests one after another the run ends: the server is not well."""
CONTACT_SECONDS = 10.0
"""For a server to answer at all, be it with an error."""


@dataclass
class Counts:
    """What has become of a run's items, requests and answers so far."""

    num_items: int
    accepted: int = 0
    taken: int = 0
    """Items left out unasked: an earlier item has one of their names."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Answers, by the reason."""
    given_up: int = 0
    """Items all of whose answers were rejected."""
    failed: Counter[str] = field(default_factory=Counter)
    """Items whose request failed, its retries too, by what happened."""
    answered: int = 0
    """Requests that the server answered in this run."""
    cached: int = 0
    """Answers taken from the cache: they cost nothing, and are in no count of tokens."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def done(self) -> int:
        """Items that are through."""
        return self.accepted + self.taken + self.given_up + self.failed.total()


@dataclass(frozen=True)
class Reply:
    """An answer of the model, as it is kept in the cache."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def opened_cache(folder: str) -> Any:
    """The cache in a folder, which is made where it is not there; close it, or use `with`.

    Raises:
        InputError: diskcache is missing, or the folder cannot be used.
    """
    try:
        import diskcache
    except ModuleNotFoundError:
        raise InputError("diskcache is not installed: pip install 'sce[write]'") from None
    try:
        # JSON, since a pickle in a folder that others can write to is theirs to run.
        return diskcache.Cache(folder, disk=diskcache.JSONDisk, eviction_policy="none")
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"cache={folder} cannot be used ({error})") from None


class Server:
    """The server, with the cache before it. The key is in nothing that leaves this class.

    Args:
        config: of the run.
        cache: from `opened_cache`.
        counts: requests and tokens are counted in it.
        changed: called after each answer of the server.

    Raises:
        InputError: openai is missing, or the key cannot be one.
    """

    def __init__(
        self, config: "WriteConfig", cache: Any, counts: Counts, changed: Callable[[], None]
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError:
            raise InputError("openai is not installed: pip install 'sce[write]'") from None
        self._openai = openai
        self._config, self._cache = config, cache
        self._counts, self._changed = counts, changed
        self._base_url = config.base_url.rstrip("/")
        self._key = _key(config.api_key_env)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=config.max_retries,
            timeout=config.timeout_seconds,
        )
        self._reached = False
        self._contact = asyncio.Lock()
        self._failures_in_a_row = 0

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def reply(self, text: str, attempt: int) -> Reply | None:
        """The answer to `text`, from the cache where it is there; None: the request failed.

        Raises:
            InputError: no request can succeed, or too many failed in a row.
        """
        request = self._request(text)
        named = {"base_url": self._base_url, "attempt": attempt, **request}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        kept = self._cache.get(key)
        if kept is not None:
            self._counts.cached += 1
            return Reply(**kept)
        await self._reach()
        reply = await self._ask(request)
        if isinstance(reply, str):
            self._note_failure(reply)
            return None
        self._cache.set(key, asdict(reply))
        self._failures_in_a_row = 0
        self._counts.answered += 1
        self._counts.prompt_tokens += reply.prompt_tokens
        self._counts.completion_tokens += reply.completion_tokens
        self._changed()
        return reply

    def _request(self, text: str) -> dict[str, Any]:
        config = self._config
        sampling = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }
        return {
            "model": config.llm,
            "messages": [{"role": "user", "content": text}],
            **{name: value for name, value in sampling.items() if value is not None},
            "extra_body": config.extra_body,
        }

    async def _reach(self) -> None:
        """Before the first request: whether anything answers there, asked once and for all.

        Without the retries that a request has, so that a wrong address is told at once.
        """
        async with self._contact:
            if self._reached:
                return
            seconds = min(CONTACT_SECONDS, self._config.timeout_seconds)
            once = self._client.with_options(max_retries=0, timeout=seconds)
            try:
                await once.models.with_raw_response.list()
            except self._openai.APIConnectionError as error:
                self._refuse_unreachable(error)
            except self._openai.APIStatusError:
                pass  # something answers; a server need not list its models
            self._reached = True

    async def _ask(self, request: dict[str, Any]) -> Reply | str:
        """The answer, or what became of the request."""
        try:
            completion = await self._client.chat.completions.create(**request)
        except self._openai.APIConnectionError as error:
            self._refuse_unreachable(error)
            timed_out = isinstance(error, self._openai.APITimeoutError)
            return "timed out" if timed_out else "connection broken"
        except self._openai.APIStatusError as error:
            return self._refused(error)
        except (self._openai.APIError, ValueError):
            return "an answer that is no JSON"
        return self._reply(completion)

    def _reply(self, completion: Any) -> Reply | str:
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        if not choices or message is None:
            return "an answer that is no chat completion"
        usage = completion.usage
        return Reply(
            text=self._without_key(message.content or ""),
            finish_reason=str(choices[0].finish_reason),
            prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
            completion_tokens=getattr(usage, "completion_tokens", None) or 0,
        )

    def _refuse_unreachable(self, error: Exception) -> None:
        """Raise where nothing listens; a connection that breaks later is another matter."""
        cause = error.__cause__
        # By name: the client's HTTP library, and with it these classes, differs by version.
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError"):
            why = self._without_key(str(cause)) or type(cause).__name__
            raise InputError(
                f"base_url={self._base_url} cannot be reached ({why}); start the server, or name "
                "another by base_url=http://HOST:PORT/v1"
            ) from None

    def _refused(self, error: Any) -> str:
        """What the server said; raises where it would say so to every request."""
        status, where = error.status_code, f"base_url={self._base_url}"
        if status in (401, 403):
            name = self._config.api_key_env
            has = "the key in it is refused" if self._key else "it is not set"
            raise InputError(
                f"{where} asks for a key ({status}): put a valid one into the environment variable "
                f"{name} ({has}), or name another variable by api_key_env"
            ) from None
        if status == 404:
            raise InputError(
                f"{where} has no such path or no model {self._config.llm} (404): base_url often "
                "ends in /v1, and llm is the name that the server lists under /models"
            ) from None
        if status not in (400, 422):
            return f"HTTP {status}"
        # The one refusal whose text a user needs: it names the option that the server lacks.
        said = self._without_key(" ".join(str(error.message).split()))
        return f"HTTP {status}: {said:.120}"

    def _note_failure(self, what: str) -> None:
        self._counts.failed[what] += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise InputError(
                f"base_url={self._base_url}: {FAILURES_IN_A_ROW} requests in a row failed, the "
                f"last: {what}; what was answered is kept, the same command goes on from there"
            )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if any(not "!" <= letter <= "~" for letter in key):
        raise InputError(f"the value of {variable} has a character in it that no key has")
    return key
