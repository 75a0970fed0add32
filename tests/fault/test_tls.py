"""Certificates that cannot be believed: told in words, never stepped around, and good again as soon as they are."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.errors import UntrustedError

from tests.support.certificates import Authority
from tests.support.keys import add_key
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fault(52), pytest.mark.timeout(240)]
PATIENCE_S = 90.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> tuple[str, str]:
    """A good certificate for 127.0.0.1, and its key."""
    return authority.sign(str(tmp_path / "server"))


@pytest.fixture
def server(tmp_path: Path, files: tuple[str, str]) -> Iterator[RunningServer]:
    cert_file, key_file = files
    with RunningServer(tmp_path / "data", "--tls-cert", cert_file, "--tls-key", key_file, "--require-keys", port=free_port()) as running:
        yield running


@pytest.fixture
def key(server: RunningServer, tmp_path: Path) -> str:
    assert server.url.startswith("https://")
    return add_key(tmp_path / "data", "test")


def settings(server: RunningServer, key: str, authority: Authority) -> dict[str, object]:
    return {"base_url": server.url, "api_key": key, "ca_file": str(authority.ca_file), "silent": True}


def renew(server: RunningServer, files: tuple[str, str], made: tuple[str, str]) -> None:
    """Give the server another certificate, as a renewal does: files replaced, SIGHUP."""
    for wanted, new in zip(files, made, strict=True):
        shutil.move(new, wanted)
    server.process.send_signal(signal.SIGHUP)


def test_everything_goes_over_tls_with_a_certificate_of_the_users_authority(
    server: RunningServer, key: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runferry.init(project="tls", id="good", dir=tmp_path, settings=settings(server, key, authority)) as run:
        for number in range(100):
            run.log({"n": number})
        assert run.flush(acked=True, timeout=PATIENCE_S), run.status()
        assert run.status().connection == "connected"

    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    rows = list(runferry.Api({"base_url": server.url}, api_key=key).run(run.path).scan_history())
    assert [row["n"] for row in rows] == list(range(100))


@pytest.mark.parametrize(
    ("host", "first_day", "last_day", "words"),
    [
        ("127.0.0.1", -30, -1, "has expired"),
        ("127.0.0.1", 1, 30, "not valid yet"),
        ("tracker.example.org", -1, 30, "another host"),
    ],
)
def test_a_bad_certificate_is_told_and_its_renewal_is_found(  # noqa: PLR0913, PLR0917 - fixtures and parameters
    server: RunningServer,
    files: tuple[str, str],
    key: str,
    authority: Authority,
    tmp_path: Path,
    host: str,
    first_day: int,
    last_day: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNFERRY_CA_FILE", str(authority.ca_file))
    renew(server, files, authority.sign(str(tmp_path / "bad"), host=host, first_day=first_day, last_day=last_day))
    with runferry.init(project="tls", id="bad", dir=tmp_path, settings=settings(server, key, authority)) as run:
        run.log({"n": 0})
        wait_until(lambda: run.status().connection == "untrusted", "the certificate is doubted", PATIENCE_S)
        assert words in (run.status().last_error or "")
        with pytest.raises(UntrustedError, match="is not trusted"):  # the same doubt on the way of `Api`
            runferry.Api({"base_url": server.url}, api_key=key).projects()

        renew(server, files, authority.sign(str(tmp_path / "good")))
        authority.ca_file.write_bytes(
            authority.ca_file.read_bytes() + b"\n"
        )  # the wait is up to ten minutes; a look at the authorities' file ends it
        assert run.flush(acked=True, timeout=PATIENCE_S), run.status()


def test_a_rotated_authority_is_trusted_when_its_file_is_there(
    server: RunningServer, files: tuple[str, str], key: str, authority: Authority, tmp_path: Path
) -> None:
    with runferry.init(project="tls", id="rotated", dir=tmp_path, settings=settings(server, key, authority)) as run:
        run.log({"n": 0})
        assert run.flush(acked=True, timeout=PATIENCE_S), run.status()

        following = Authority(tmp_path, "following")
        renew(server, files, following.sign(str(tmp_path / "rotated")))
        server.stop()
        with RunningServer(tmp_path / "data", "--tls-cert", files[0], "--tls-key", files[1], port=int(server.url.rsplit(":", 1)[1])):
            run.log({"n": 1})
            wait_until(lambda: run.status().connection == "untrusted", "the new authority is unknown", PATIENCE_S)
            assert "nobody trusted here has signed it" in (run.status().last_error or "")

            shutil.move(following.ca_file, authority.ca_file)
            assert run.flush(acked=True, timeout=PATIENCE_S), run.status()
            run.finish()


def test_a_renewal_that_cannot_be_used_leaves_the_certificate_in_force(
    server: RunningServer, files: tuple[str, str], key: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(files[1]).write_text("half written")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "is not used" in server.log.read_text(), "the server says so", PATIENCE_S)

    monkeypatch.setenv("RUNFERRY_CA_FILE", str(authority.ca_file))
    assert runferry.Api({"base_url": server.url}, api_key=key).projects() == []


def test_https_at_a_server_without_tls_is_never_answered_in_the_clear(tmp_path: Path, authority: Authority) -> None:
    with RunningServer(tmp_path / "plain") as plain:
        address = plain.url.replace("http://", "https://")
        with runferry.init(
            project="tls", id="down", dir=tmp_path, settings={"base_url": address, "ca_file": str(authority.ca_file), "silent": True}
        ) as run:
            run.log({"n": 0})
            wait_until(lambda: run.status().connection == "not_runferry", "there is no TLS there", PATIENCE_S)
            assert "does not speak TLS" in (run.status().last_error or "")
            run.finish(timeout=0)
        assert runferry.Api({"base_url": plain.url}).projects() == []
