"""The server of the downloads that are killed: slow, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fuzz.kill_cases import write_sequences


class _Slow(BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        first = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        size = len(self.content)
        if first >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        with contextlib.suppress(OSError):
            for start in range(first, size, 4096):
                self.wfile.write(self.content[start : start + 4096])
                time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(place: Path, in_child: Callable[..., None]) -> Iterator[None]:
    """Serve a data set slowly, from a process of its own; `in_child` calls a function in a fork."""
    from unet.datasets import cell_tracking_challenge as ctc

    in_child(write_sequences, place / "served.zip", 0)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    address = f"http://127.0.0.1:{http.server_address[1]}/"
    ctc.DATASETS["dic-hela"] = ctc.DATASETS["dic-hela"]._replace(address=address)
    pid = os.fork()
    if not pid:
        _Slow.content = (place / "served.zip").read_bytes()
        http.serve_forever()
    http.server_close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
