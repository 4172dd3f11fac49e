"""An archive on loopback that serves files over HTTP, with Range requests, and fails in the ways that archives do."""

import hashlib
import http.server
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field


SIZE = 200_000  # bytes of the file that faults are tried on


@dataclass
class Fault:
    """What goes wrong with one request of a file.

    Attributes:
        kind: "status" (`value` is the HTTP status), "truncated" (the connection is closed in good order after `value`
            bytes), "reset" (it is reset after `value` bytes), "slow" (small pieces with pauses), "silent" (nothing for
            `value` seconds), "flipped" (a bit of byte `value` is wrong), "no range" (Range is not understood),
            "unsized" (nor is the length told), "other range" (the answer begins elsewhere), "encoded" (sent with the
            header Content-Encoding: gzip).
        value: see there.
        headers: further headers of the answer.
        replacement: what the file is from now on.
    """

    kind: str
    value: float = 0
    headers: dict = field(default_factory=dict)
    replacement: bytes | None = None


class ArchiveServer(http.server.ThreadingHTTPServer):
    """Serves `files`, path -> bytes, below `url`.

    Attributes:
        files: path -> content, without a leading slash.
        faults: path -> faults of the requests to come, in their order.
        always: path -> fault of every request.
        requests: (path, Range header or "") of all GET requests.
        has_validators: whether answers carry ETag and Last-Modified.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.requests: list[tuple[str, str]] = []
        self.has_validators = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ArchiveServer

    def log_message(self, *arguments) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.answer(has_body=False)

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        with self.server.lock:
            self.server.requests.append((path, self.headers.get("Range", "")))
            waiting = self.server.faults.get(path)
            fault = waiting.pop(0) if waiting else self.server.always.get(path)
        self.answer(fault=fault)

    def answer(self, fault: Fault | None = None, has_body: bool = True) -> None:
        path, fault = self.path.lstrip("/"), fault or Fault("none")
        if fault.kind == "status" or path not in self.server.files:
            self.send_response(int(fault.value) if fault.kind == "status" else 404)
            self.end_with({**fault.headers, "Content-Length": "0"})
            return
        content = self.server.files[path]
        if fault.replacement is not None:
            self.server.files[path] = fault.replacement
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = (
            {"ETag": etag, "Last-Modified": "Tue, 06 Dec 2022 00:00:00 GMT"} if self.server.has_validators else {}
        )
        start = self.start_of_range(etag) if fault.kind not in ("no range", "unsized") else 0
        if start >= len(content) > 0:
            self.send_response(416)
            self.end_with({"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = bytearray(content[start:])
        if fault.kind == "flipped":
            body[int(fault.value)] ^= 4
        if fault.kind == "encoded":
            headers["Content-Encoding"] = "gzip"
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault.kind == "other range" else start
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        if fault.kind == "unsized":
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body))
        self.end_with({**headers, **fault.headers})
        if has_body:
            self.send_body(bytes(body), fault)

    def start_of_range(self, etag: str) -> int:
        """First byte that is asked for, if the part that the client has is of this very file."""
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", etag) == etag and self.server.has_validators
        return int(match[1]) if match and is_same else 0

    def end_with(self, headers: dict) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_body(self, body: bytes, fault: Fault) -> None:
        if fault.kind == "silent":
            time.sleep(fault.value)
        if fault.kind == "slow":
            size = -(-len(body) // 20)
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
                time.sleep(0.01)
            return
        if fault.kind not in ("truncated", "reset"):
            self.wfile.write(body)
            return
        self.wfile.write(body[: int(fault.value)])
        self.wfile.flush()
        self.close_connection = True
        if fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def left_over(archive):
    """Files of the mirror that are no files of an archive."""
    endings = (".incomplete", ".validator", ".part")
    return [path for path in archive.root.rglob("*") if path.name.endswith(endings) or "unpacking" in path.name]
