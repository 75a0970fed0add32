"""Keys: who comes in at which door, and what happens to who is inside when the key ends."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from runferry.server._generated import ingest_pb2 as pb
from runferry.server.auth import DeniedError, Keyring
from runferry.server.keys_command import parser
from runferry.server.metadata import keys
from runferry.server.metadata.database import Database

from tests.server.test_process import refused
from tests.support.door import DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.keys import add_key, keys_command, revoke_key
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "data"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with RunningServer(folder, "--require-keys") as running:
        yield running


@pytest.fixture(scope="module")
def key(server: RunningServer, folder: Path) -> str:
    assert server.url
    return add_key(folder, "both")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def error_of(server: RunningServer, key: str | None) -> grpc.RpcError:
    """How a stream with this key ends."""
    with DoorStream(server.write_address, key=key) as stream:
        stream.wait_end()
        assert stream.error is not None
        return stream.error


def test_who_has_no_key_sees_the_page_and_the_door_and_nothing_else(server: RunningServer, key: str) -> None:
    with httpx.Client(base_url=server.url) as client:
        answers = {path: client.get(path).status_code for path in ("/", "/api/v1/door", "/api/v1/projects", "/api/v1/live", "/api/docs")}
        door = client.get("/api/v1/door").json()
        wrong = client.get("/api/v1/projects", headers=bearer(key[:-1] + "?"))
        right = client.get("/api/v1/projects", headers=bearer(key))

    assert answers == {"/": 200, "/api/v1/door": 200, "/api/v1/projects": 401, "/api/v1/live": 401, "/api/docs": 401}
    assert door["wants_key"] is True
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Bearer realm="runferry"')
    assert right.json() == {"projects": []}


def test_the_write_door_wants_a_key_too(server: RunningServer, folder: Path) -> None:
    reader = add_key(folder, "reader", "--scope", "read")

    for key, words in ((None, "wants a key"), ("rf_00000000_nonsense", "not one of this server's"), (reader, "may read, not write")):
        error = error_of(server, key)

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert words in error.details()


def test_a_key_that_may_only_write_reads_nothing(server: RunningServer, folder: Path) -> None:
    writer_key = add_key(folder, "writer", "--scope", "write")
    writer = ScriptedWriter(project="written", writer_id=0x77)

    with DoorStream(server.write_address, key=writer_key) as stream:
        stream.open(writer)
        stream.send(writer.rows(3))
        stream.wait_durable(4)
    answer = httpx.get(f"{server.url}/api/v1/projects", headers=bearer(writer_key))

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert writer_key not in answer.text


@pytest.mark.fault(51)
def test_a_revoked_key_ends_what_it_had_opened(server: RunningServer, folder: Path) -> None:
    doomed = add_key(folder, "doomed")
    writer = ScriptedWriter(project="doomed", writer_id=0x78)
    with (
        DoorStream(server.write_address, key=doomed) as stream,
        httpx.stream("GET", f"{server.url}/api/v1/live", headers=bearer(doomed), timeout=20.0) as live,
    ):
        stream.open(writer)
        stream.send(writer.rows(2))
        stream.wait_durable(3)

        revoke_key(folder, "doomed")
        stream.wait_end()
        rest = list(live.iter_lines())

        assert stream.error is not None
        assert stream.error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "was revoked" in stream.error.details()
        assert rest[0] == ": open"
    assert httpx.get(f"{server.url}/api/v1/projects", headers=bearer(doomed)).status_code == 401
    assert error_of(server, doomed).code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_page_logs_in_once_and_its_cookie_ends_with_the_key(server: RunningServer, folder: Path) -> None:
    page_key = add_key(folder, "page", "--scope", "read")
    with httpx.Client(base_url=server.url) as browser:
        wrong = browser.post("/api/v1/session", json={"key": "rf_00000000_wrong"})
        answer = browser.post("/api/v1/session", json={"key": page_key})
        cookie = answer.headers["set-cookie"]

        assert wrong.status_code == 401
        assert answer.json() == {"required": True, "name": "page", "scopes": ["read"]}
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert page_key not in cookie
        assert browser.get("/api/v1/projects").status_code == 200

        name, value = next(iter(browser.cookies.items()))
        forged = value.replace(value.split(".")[1], str(int(value.split(".")[1]) + 1))
        assert httpx.get(f"{server.url}/api/v1/projects", cookies={name: forged}).status_code == 401

        revoke_key(folder, "page")
        wait_until(lambda: browser.get("/api/v1/projects").status_code == 401, "the session has ended")
        assert browser.delete("/api/v1/session").status_code == 204
        assert not browser.cookies


def test_keys_are_kept_as_hashes_and_listed_by_their_first_part(folder: Path, key: str) -> None:
    listed = keys_command(folder, "list").stdout
    stored = b"".join(path.read_bytes() for path in folder.glob("meta.db*"))
    with sqlite3.connect(folder / "meta.db") as connection:
        (count,) = connection.execute("SELECT count(*) FROM api_key").fetchone()

    assert key[:11] in listed
    assert key not in listed
    assert key.rsplit("_", 1)[1].encode() not in stored
    assert len(listed.splitlines()) == count + 1


def test_the_command_says_what_is_wrong(folder: Path, key: str, tmp_path: Path) -> None:
    assert key
    for words, told in (
        (("add", "both"), "exists"),
        (("add", ""), "printable"),
        (("add", "x", "--scope", "admin"), "read,write"),
        (("revoke", "nobody"), "neither"),
    ):
        found = keys_command(folder, *words)
        assert (found.returncode, told in found.stderr) == (2, True), found
    with pytest.raises(SystemExit):
        parser().parse_args(["add", "x", "--expires", "soon"])
    assert parser().parse_args(["add", "x", "--expires", "12h"]).expires == 12 * 3_600
    nowhere = keys_command(tmp_path / "nowhere", "list")
    assert (nowhere.returncode, "no server data" in nowhere.stderr) == (2, True)


def test_keys_end_by_themselves_and_own_keys_write_only(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    now_us = [1_000]
    with database.write() as connection:
        secret = keys.add_key(connection, "short", keys.SCOPES, now_us=0, expires_us=2_000)
    keyring = Keyring(database, lambda: now_us[0])
    grant = keyring.grant(secret)
    session = keyring.session(grant)
    assert keyring.refusal(grant) is None
    assert keyring.session_grant(session) == grant
    _, end, signature = session.split(".")
    longer = f"{grant.key_id}.{end.rjust(20, '0')}999.{signature}"  # the same number at its beginning, another one as a whole
    for nonsense in (
        "",
        ".",
        "a.b.c",
        "é.1.2",
        f"{grant.key_id}.9" * 3,
        f"{grant.key_id}.{'9' * 5000}.x",
        f"{grant.key_id}.{end}.é",
        longer,
    ):
        with pytest.raises(DeniedError):
            keyring.session_grant(nonsense)

    now_us[0] = 2_000

    assert "expired" in (keyring.refusal(grant) or "")
    with pytest.raises(DeniedError, match="expired"):
        keyring.grant(secret)
    with pytest.raises(DeniedError, match="expired"):
        keyring.session_grant(session)
    assert keyring.grant(keyring.own_secret).scopes == {"write"}
    database.close()


def test_beyond_this_machine_keys_are_wanted_unless_that_is_refused_by_name(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "wide", "--host", "0.0.0.0") as wide:  # noqa: S104 - what is tested
        closed = httpx.get(f"{wide.url}/api/v1/projects").status_code
    with RunningServer(tmp_path / "open", "--host", "0.0.0.0", "--insecure-no-auth") as bare:  # noqa: S104 - what is tested
        open_to_all = httpx.get(f"{bare.url}/api/v1/projects").status_code

    assert (closed, open_to_all) == (401, 200)
    assert "no key opens this server yet" in wide.log.read_text()
    assert "unencrypted" in wide.log.read_text()
    assert "whoever can connect" in bare.log.read_text()
    assert "contradict" in refused("--require-keys", "--insecure-no-auth", "--data", str(tmp_path / "both"), cwd=tmp_path)


@pytest.mark.fault(57)
def test_a_client_with_its_share_of_writers_is_told_to_come_back_and_the_others_are_served(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with RunningServer(data, "--require-keys", "--max-writers", "6") as server, ExitStack() as stack:
        greedy, modest = add_key(data, "greedy"), add_key(data, "modest")

        def opened(key: str, writer_id: int) -> DoorStream:
            stream = stack.enter_context(DoorStream(server.write_address, key=key))
            stream.say(pb.ClientMessage(open=pb.Open(protocol=1, open_frame=ScriptedWriter(writer_id=writer_id).open_frame())))
            stream.wait(lambda: stream.all("open_ok") or stream.all("throttle") or None)
            return stream

        streams = [opened(greedy, number) for number in range(1, 7)]
        other = opened(modest, 7)
        streams[0].close()
        wait_until(lambda: opened(greedy, 8).all("open_ok"), "there is room again")

    assert [bool(stream.all("open_ok")) for stream in streams] == [True] * 5 + [False]
    assert other.all("open_ok")
    assert "of this key" in streams[-1].all("throttle")[0].throttle.reason
