"""A real HTTP server that answers as an OpenAI-compatible endpoint does, from rules that a test sets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class JudgeServer:
    """`reply` makes the judge's text of the messages; each entry of `statuses` is an HTTP status sent once instead."""

    url: str = ""
    reply: Callable[[list[dict[str, str]]], str] = lambda messages: "Score: 1"
    statuses: list[int] = field(default_factory=list)
    always: int | None = None
    """Set: every request gets this status."""
    body: dict[str, Any] | None = None
    """Set: every request gets this in place of a chat completion."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """A server on a free port, until the end of the block."""
    state = JudgeServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append(request)
                state.keys.append(self.headers["Authorization"])
                status = state.always or (state.statuses.pop(0) if state.statuses else 200)
            if self.path != "/v1/chat/completions":
                status = 404
            content = self._completion(request) if status == 200 else {"error": {"message": "scripted"}}
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After-Ms", "20")
            self.end_headers()
            self.wfile.write(body)

        def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
            if state.body is not None:
                return state.body
            message = {"role": "assistant", "content": state.reply(request["messages"])}
            return {
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }  # fmt: skip

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
