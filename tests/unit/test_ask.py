"""The small questions that `init` asks: whatever answers, it is read, refused or given up in time."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from runferry import _native
from runferry.errors import CommError, NotRunferryError, UnreachableError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server for one connection that says just this and closes, or nothing at all; its address, and what it was sent."""
    heard: list[bytes] = []
    is_over = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            heard.append(connection.recv(1 << 16))
            if answer is None:
                is_over.wait(PATIENCE_S)
            else:
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            is_over.set()
            thread.join()


def ask(url: str, *, api_key: str | None = None, ca_file: str | None = None, timeout_s: float = PATIENCE_S) -> tuple[int, str, bytes]:
    """`GET /x`."""
    return _native.ask(url, "/x", api_key=api_key, ca_file=ca_file, timeout_s=timeout_s)


def test_the_question_is_one_request_below_the_address_with_the_key() -> None:
    with answering(OK) as (url, heard):
        assert ask(f"{url}/team/", api_key="secret-key") == (200, "OK", b"{}")

    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /team/x HTTP/1.1"
    assert "authorization: Bearer secret-key" in lines


def test_without_a_key_none_is_shown() -> None:
    with answering(OK) as (url, heard):
        ask(url)

    assert b"authorization" not in heard[0].lower()


def test_any_status_is_an_answer() -> None:
    for status, reason in ((302, "Found"), (401, "Unauthorized"), (503, "Service Unavailable")):
        with answering(b"HTTP/1.1 %d x\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n" % status) as (url, _):
            assert ask(url) == (status, reason, b"")


def test_what_does_not_speak_http_is_no_server_of_ours() -> None:
    for answer in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000):
        with answering(answer) as (url, _), pytest.raises(NotRunferryError, match="answers, but is no Runferry server"):
            ask(url)


def test_a_connection_that_closes_without_a_word_may_answer_later() -> None:
    with answering(b"") as (url, _), pytest.raises(UnreachableError, match=f"{url} cannot be reached: "):
        ask(url)


def test_silence_ends_in_time() -> None:
    with answering(None) as (url, _), pytest.raises(UnreachableError, match=r"within 0\.1 s"):
        ask(url, timeout_s=0.1)


def test_an_address_that_is_none_is_said_so() -> None:
    with pytest.raises(CommError, match="user name"):
        ask("http://key@127.0.0.1:1")


def test_authorities_that_cannot_be_read_are_trusted_with_nothing() -> None:
    with pytest.raises(UntrustedError, match="cannot read /nowhere/"):
        ask("https://127.0.0.1:1", ca_file="/nowhere/ca.pem")


def test_ctrl_c_ends_the_wait_for_an_answer() -> None:
    main = threading.main_thread().ident
    assert main is not None
    with answering(None) as (url, heard):

        def interrupt() -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not heard and time.monotonic() < deadline:
                time.sleep(0.01)
            signal.pthread_kill(main, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                ask(url, timeout_s=3600)
        finally:
            thread.join()
            signal.signal(signal.SIGINT, before)
