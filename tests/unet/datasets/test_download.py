"""Downloads against a server on this machine that breaks off, resumes and refuses."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unet.datasets.download import download
from unet.errors import InputError

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@contextlib.contextmanager
def server(content=CONTENT, break_off=(), status=None, ranges=True):
    """Serve `content`; request number k ends after break_off[k] bytes of what it should send."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            number = len(seen)
            seen.append(self.headers.get("Range"))
            if status:
                self.send_error(status)
                return
            first = 0
            if ranges and seen[-1]:
                first = int(seen[-1].split("=")[1].rstrip("-"))
                if first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            stop = first + break_off[number] if number < len(break_off) else len(content)
            self.wfile.write(content[first:stop])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/folder/file.zip", seen
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_whole_file_at_once_and_not_again(tmp_path):
    with server() as (url, seen):
        for _ in range(2):
            path = download(url, tmp_path / "new", hashlib.sha256(CONTENT).hexdigest())
            assert path == tmp_path / "new" / "file.zip"
            assert path.read_bytes() == CONTENT
    assert seen == [None]


def test_broken_connection_goes_on_where_it_broke(tmp_path):
    with server(break_off=(262_144, 196_608)) as (url, seen):
        assert download(url, tmp_path).read_bytes() == CONTENT
    assert seen == [None, "bytes=262144-", "bytes=458752-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip"]


def test_next_run_goes_on_with_the_part(tmp_path):
    with server(break_off=(262_144,)) as (url, _):
        with pytest.raises(InputError, match=f"cannot be downloaded.*262144 of {len(CONTENT)}"):
            download(url, tmp_path, retries=0)
        assert not (tmp_path / "file.zip").exists()
    with server() as (url, seen):
        assert download(url, tmp_path).read_bytes() == CONTENT
    assert seen == ["bytes=262144-"]


def test_server_that_knows_no_ranges_sends_it_anew(tmp_path):
    with server(break_off=(262_144,), ranges=False) as (url, _):
        assert download(url, tmp_path).read_bytes() == CONTENT


def test_part_that_is_whole_is_taken_and_one_too_long_is_not(tmp_path):
    for part in (CONTENT, CONTENT + b"more"):
        (tmp_path / "file.zip.part").write_bytes(part)
        with server() as (url, _):
            path = download(url, tmp_path)
        assert path.read_bytes() == CONTENT
        path.unlink()


def test_what_is_there_stays_unless_the_right_file_comes(tmp_path):
    (tmp_path / "file.zip").write_bytes(b"an older one")
    with server() as (url, _), pytest.raises(InputError, match="is not the file expected"):
        download(url, tmp_path, "0" * 64, retries=0)
    assert (tmp_path / "file.zip").read_bytes() == b"an older one"


def test_missing_file_says_404(tmp_path):
    with server(status=404) as (url, _), pytest.raises(InputError) as caught:
        download(url, tmp_path)
    assert str(caught.value) == f"{url} cannot be downloaded (the server says 404 Not Found)"
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path):
    with server() as (url, _):
        pass
    with pytest.raises(InputError, match=r"cannot be downloaded .*refused") as caught:
        download(url, tmp_path)
    assert "\n" not in str(caught.value)
