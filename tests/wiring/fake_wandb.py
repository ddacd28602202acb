"""A W&B server in a thread: it answers the calls by which wandb-core logs a run, and keeps all."""

import base64
import gzip
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb


class FakeWandb(ThreadingHTTPServer):
    """Listens on 127.0.0.1; `graphql_status` and `health_status` are what those calls answer."""

    daemon_threads = True

    def __init__(self, graphql_status=200, health_status=200):
        self.graphql_status, self.health_status = graphql_status, health_status
        self.operations, self.runs, self.history, self.files = [], {}, [], {}
        self.exit_code = None
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeWandb

    def log_message(self, *args):
        """Stay silent."""

    def read_body(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if self.headers.get("content-encoding") == "gzip":
            return gzip.decompress(body)
        return body

    def reply(self, answer, status=200):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({}, self.server.health_status)

    def do_PUT(self):
        self.server.files[self.path] = self.read_body()
        self.reply({})

    def do_POST(self):
        body = self.read_body()
        if self.path.startswith("/graphql"):
            if self.server.graphql_status != 200:
                login = base64.b64decode(self.headers["authorization"].removeprefix("Basic "))
                refusal = {"message": f"Refused:\n{login.decode()}"}  # As indiscreet as can be.
                return self.reply({"errors": [refusal]}, self.server.graphql_status)
            return self.reply({"data": self.graphql(json.loads(body))})
        if "file_stream" in self.path:
            self.keep_stream(json.loads(body))
        return self.reply({})

    def keep_stream(self, message):
        history = message.get("files", {}).get("wandb-history.jsonl", {"content": []})
        self.server.history += [json.loads(line) for line in history["content"]]
        self.server.exit_code = message.get("exitcode", self.server.exit_code)

    def graphql(self, request):
        operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"]).group(1)
        self.server.operations.append(operation)
        answer = getattr(self, f"answer_{operation}", None)
        return answer(request.get("variables") or {}) if answer else {}

    # Named as wandb-core names its operations; it can do with an empty answer to all others.

    def answer_Viewer(self, variables):
        return {"viewer": {"id": "u", "username": "me", "entity": "me", "flags": "{}"}}

    def answer_ServerFeaturesQuery(self, variables):
        return {"serverInfo": {"features": []}}

    def answer_RunResumeStatus(self, variables):
        entity = {"id": "e", "name": variables.get("entity") or "me"}
        project = {"id": "m", "name": variables.get("project"), "entity": entity}
        return {"model": project | {"bucket": None}}

    def answer_UpsertBucket(self, variables):
        given = {name: value for name, value in variables.items() if value is not None}
        self.server.runs.setdefault(variables["name"], {}).update(given)  # Called again and again.
        entity = {"id": "e", "name": variables.get("entity") or "me"}
        bucket = {
            "id": "r",
            "name": variables["name"],
            "displayName": variables.get("displayName") or variables["name"],
            "config": "{}",
            "project": {"id": "p", "name": variables.get("project") or "p", "entity": entity},
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def answer_CreateRunFiles(self, variables):
        names = variables.get("files", [])
        files = [{"name": name, "uploadUrl": f"{self.server.url}/up/{name}"} for name in names]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}


@contextmanager
def wandb_alone(patch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """No settings, keys or ranks but the test's own, and a fresh wandb before and after it."""
    for name in os.environ:
        if name.startswith(("WANDB_", "SLURM_")) or name.endswith(("RANK", "_proxy", "_PROXY")):
            patch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        patch.setenv(name, str(home))
    patch.setenv("NETRC", str(home / "no-netrc"))
    patch.setenv("WANDB_ERROR_REPORTING", "false")
    patch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()
