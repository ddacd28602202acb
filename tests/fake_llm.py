"""A small OpenAI-compatible server on loopback that answers as a test tells it to."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
FILLER = "Travellers of every age still speak of it warmly."


def asked(prompt: str) -> tuple[str, str]:
    """(subject, answer) that a prompt of ours names."""
    found = re.search(r"exactly as they stand here: (.*?); (.*)\. Name ", prompt)
    assert found, prompt
    return found[1], found[2]


def good_text(prompt: str) -> str:
    """A passage of about 60 words with subject and answer in it."""
    name, answer = asked(prompt)
    fact = f"The records of {name} give it as {answer} without a doubt."
    return " ".join([FILLER, fact, *[FILLER] * 5])


def completion(text: str, finish_reason: str = "stop") -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": USAGE,
    }


class FakeLLM(ThreadingHTTPServer):
    """`act(prompt, n)` says what to do with the n-th request (from 0) for a fact.

    It gives: a text to answer with, a number (an HTTP status), a completion, raw bytes to send as
    the body, or one of "cut" (half a body), "hang" (until the end of the test).
    """

    daemon_threads = True

    def __init__(self, act: Callable = lambda prompt, n: good_text(prompt)) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.act = act
        self.prompts: list[str] = []
        self.bodies: list[dict] = []
        self.keys: list[str] = []
        self.num_gets = 0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.hangs = threading.Event()
        self.end = threading.Event()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> "FakeLLM":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.end.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that has gone is no error here."""

    def note(self, body: dict, key: str) -> tuple[str, int]:
        prompt = body["messages"][0]["content"]
        with self.lock:
            n = self._seen[asked(prompt)]
            self._seen[asked(prompt)] += 1
            self.prompts.append(prompt)
            self.bodies.append(body)
            self.keys.append(key)
        return prompt, n


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeLLM

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.server.num_gets += 1
        self._send(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        prompt, n = self.server.note(body, self.headers["Authorization"])
        act = self.server.act(prompt, n)
        # Before the answer is out: the client may send its next request as soon as it has it.
        with self.server.lock:
            self.server.at_once -= 1
        self._do(act, prompt)

    def _do(self, act: object, prompt: str) -> None:
        if act == "hang":
            self.server.hangs.set()
            self.server.end.wait(60)
            self.close_connection = True
        elif act == "cut":
            content = json.dumps(completion(good_text(prompt))).encode()
            self._send(200, content[: len(content) // 2], length=len(content))
            self.close_connection = True
        elif isinstance(act, int):
            said = f"no: {prompt[:20]} {self.headers['Authorization']}"
            self._send(act, json.dumps({"error": {"message": said}}).encode())
        elif isinstance(act, bytes):
            self._send(200, act)
        else:
            answer = completion(act) if isinstance(act, str) else act
            self._send(200, json.dumps(answer).encode())

    def _send(self, status: int, content: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
