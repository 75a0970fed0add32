"""A wrong key, a revoked key, none at all: training goes on, the journal keeps everything, and a good key is all it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import runferry
from runferry.errors import AuthenticationError
from runferry.settings import write_to_file

from tests.support.effort import effort
from tests.support.keys import add_key, revoke_key
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fault(51), pytest.mark.timeout(240)]
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "data"


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[RunningServer]:
    with RunningServer(data, "--require-keys") as running:
        yield running


@pytest.fixture(scope="module")
def reader(server: RunningServer, data: Path) -> str:
    """A key that is good for the whole file."""
    assert server.url
    return add_key(data, "reader")


def steps_stored(server: RunningServer, reader: str, path: str) -> list[int]:
    """The steps that the server holds, in order."""
    api = runferry.Api({"base_url": server.url}, api_key=reader)
    return [row["_step"] for row in api.run(path).scan_history()]


def test_a_key_revoked_in_mid_stream_pauses_the_run_and_a_login_resumes_it(
    server: RunningServer, data: Path, reader: str, tmp_path: Path
) -> None:
    rounds = effort("key_rounds", 2)
    write_to_file({"base_url": server.url, "api_key": add_key(data, "round-0")})
    with runferry.init(project="keys", id="rounds", dir=tmp_path, settings={"silent": True}) as run:
        for number in range(rounds):
            run.log({"n": number})
            assert run.flush(acked=True, timeout=PATIENCE_S), run.status()

            revoke_key(data, f"round-{number}")
            wait_until(lambda: run.status().connection == "unauthenticated", "the run knows of it", PATIENCE_S)
            assert "revoked" in (run.status().last_error or "")
            run.log({"n": -number})
            assert run.flush(durable=True)
            assert run.status().backlog_frames > 0

            fresh = add_key(data, f"round-{number + 1}")
            runferry.login(key=fresh, host=server.url)
            assert run.flush(acked=True, timeout=PATIENCE_S), run.status()

    assert steps_stored(server, reader, run.path) == list(range(2 * rounds))
    assert run.status().dropped_rows == 0


TRAINING = """
import sys, runferry
run = runferry.init(project="keys", id=sys.argv[1] if len(sys.argv) > 1 else "wrong")
for number in range(200):
    run.log({"n": number})
run.flush(durable=True)
print("logged", flush=True)
sys.stdin.readline()
print(run.status().connection, flush=True)
run.finish(timeout=0.5)
print("finished", flush=True)
"""


def test_a_wrong_key_at_init_never_blocks_training_and_is_told_once(server: RunningServer, data: Path, reader: str, tmp_path: Path) -> None:
    wrong = "rf_00000000_" + "x" * 43
    with Trainer(TRAINING, tmp_path, base_url=server.url, api_key=wrong) as trainer:
        trainer.wait_for("logged")
        trainer.tell("go on")
        said = trainer.line()
        trainer.wait_for("finished")
        code, _ = trainer.ended()
    told = trainer.errors.read_text()

    assert code == 0
    assert said in {"unauthenticated", "connecting"}
    assert told.count("refuses the key") == 1, told
    assert wrong not in told
    assert "runferry sync" in told

    refused = command(tmp_path, "sync", "runferry", base_url=server.url, api_key=wrong)
    assert refused.returncode == 1, refused
    assert "does not accept the API key" in refused.stdout
    sent = command(tmp_path, "sync", "runferry", base_url=server.url, api_key=add_key(data, "for-sync"))
    assert sent.returncode == 0, sent
    assert steps_stored(server, reader, "local/keys/wrong") == list(range(200))


def test_a_key_in_the_settings_file_takes_over_from_a_revoked_one_in_the_environment(
    server: RunningServer, data: Path, reader: str, tmp_path: Path
) -> None:
    given = add_key(data, "given")
    with runferry.init(
        project="keys", id="takes-over", dir=tmp_path, settings={"base_url": server.url, "api_key": given, "silent": True}
    ) as run:
        run.log({"n": 0})
        assert run.flush(acked=True, timeout=PATIENCE_S), run.status()
        write_to_file({"base_url": server.url, "api_key": reader})

        revoke_key(data, "given")
        wait_until(lambda: run.status().retries > 0, "the key is refused", PATIENCE_S)
        run.log({"n": 1})
        assert run.flush(acked=True, timeout=PATIENCE_S), run.status()

    assert steps_stored(server, reader, run.path) == [0, 1]


def test_a_key_goes_to_no_server_but_its_own(server: RunningServer, data: Path, tmp_path: Path) -> None:
    own = add_key(data, "own")
    write_to_file({"base_url": server.url, "api_key": own})
    with RunningServer(tmp_path / "other", "--require-keys") as other:
        assert runferry.Api().projects() is not None
        with pytest.raises(AuthenticationError, match="wants a key"):
            runferry.Api({"base_url": other.url}).projects()
        with runferry.init(project="keys", id="elsewhere", dir=tmp_path, settings={"base_url": other.url, "silent": True}) as run:
            run.log({"n": 0})
            wait_until(lambda: run.status().connection == "unauthenticated", "no key is shown there", PATIENCE_S)
            assert "wants a key" in (run.status().last_error or "")
            run.finish(timeout=0)


def test_login_keeps_no_key_that_the_server_refuses(server: RunningServer, data: Path, tmp_path: Path) -> None:
    good = add_key(data, "login")

    refused = command(tmp_path, "login", server.url, "--key-stdin", text_in="rf_00000000_wrong\n")
    kept = tmp_path / "config" / "settings"
    was_kept = kept.exists()
    without = command(tmp_path, "login", server.url)
    taken = command(tmp_path, "login", server.url, "--key-stdin", text_in=good + "\n")
    listed = command(tmp_path, "runs")

    assert (refused.returncode, was_kept) == (1, False), refused
    assert (without.returncode, "wants a key" in without.stderr) == (0, True), without
    assert taken.returncode == 0, taken
    assert taken.stderr == ""
    assert good not in taken.stdout + taken.stderr
    assert kept.stat().st_mode & 0o777 == 0o600
    assert listed.returncode == 0, listed
