"""Servers over PostgreSQL: the database is killed, cut off and failed over, servers die and others go on, and each row is there once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from runferry.server import check

from tests.server.events import EventReader
from tests.support import stored
from tests.support.door import DoorStream
from tests.support.effort import effort, record
from tests.support.exactly_once import Training
from tests.support.faultproxy import FaultProxy
from tests.support.frames import ScriptedWriter
from tests.support.ports import free_port
from tests.support.postgres import FAST, Cluster
from tests.support.servers import RunningServer
from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE_KILLS = effort("postgres_kills", 2)
SERVER_KILLS = effort("postgres_server_kills", 2)
COMMIT_CUTS = effort("postgres_cuts", 6)


@pytest.fixture
def url(cluster: Cluster, postgres_database: str) -> str:
    """An empty database."""
    return cluster.url(postgres_database)


class TwoServers:
    """Two servers on one database behind one address, which leads to one of them; a context manager."""

    def __init__(self, store: str, folder: Path) -> None:
        """Start both; the address leads to the first."""
        self._store, self._folder = store, folder
        self._stack = ExitStack()
        self.http = self._stack.enter_context(FaultProxy(0))
        self.write = self._stack.enter_context(FaultProxy(0))
        self.url = f"http://127.0.0.1:{self.http.port}"
        self.servers = [self._start(number) for number in range(2)]
        self.lead_to(0)

    def _start(self, number: int) -> RunningServer:
        advertised = ("--advertise-write", f"127.0.0.1:{self.write.port}")
        server = RunningServer(self._folder / f"server{number}", "--store", self._store, *advertised, port=free_port())
        self._stack.callback(lambda: server.process.poll() is None and server.stop())
        return server

    def lead_to(self, number: int) -> None:
        """New connections go to this server."""
        server = self.servers[number]
        self.http.target = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        self.write.target = ("127.0.0.1", server.write_port)

    def restart(self, number: int) -> None:
        """A server in the place of one that was killed."""
        self.servers[number] = self._start(number)

    def __enter__(self) -> TwoServers:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use them for the length of a block."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End everything."""
        self._stack.close()


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[TwoServers]:
    """Two servers on an empty database."""
    with TwoServers(url, tmp_path) as made:
        yield made


@pytest.mark.fault(79, 35)
@pytest.mark.timeout(300)
def test_a_writer_whose_server_is_killed_goes_on_at_another_one_and_each_row_is_there_once(
    pair: TwoServers, url: str, tmp_path: Path
) -> None:
    moving = Training(pair.url, tmp_path, "moving")
    staying = Training(pair.servers[1].url, tmp_path, "staying")
    for _ in range(SERVER_KILLS):
        for training in (moving, staying):
            training.go_on(for_s=0.4)
        pair.servers[0].kill()
        pair.lead_to(1)
        moving.go_on(for_s=0.4)
        moving.all_acked()
        pair.restart(0)
        pair.lead_to(0)
        pair.write.reset_all()
    for training in (moving, staying):
        training.check(pair.url)
    record("servers on one database killed", kills=SERVER_KILLS, rows=moving.logged + staying.logged)
    assert check.main(["--store", url]) == 0


@pytest.mark.fault(79)
@pytest.mark.timeout(120)
def test_a_stream_at_each_of_two_servers_for_one_writer_stores_each_frame_once(pair: TwoServers) -> None:
    writer = ScriptedWriter()
    frames = writer.rows(40)
    first, second = (server.write_address for server in pair.servers)
    with DoorStream(first) as old, DoorStream(second) as new:
        old.open(writer)
        old.send(frames[:10])
        old.wait_durable(11)
        assert new.open(writer).next_seq == 11
        new.send(frames[10:30])
        new.wait_durable(31)

        old.send(frames[10:20])
        old.wait(lambda: old.durable >= 21 or None)
        old.send(frames[35:])
        rewind = old.wait_kind("rewind").rewind

        assert rewind.next_seq in {21, 31}
        new.send(frames[30:])
        new.wait_durable(41)
    steps = [row["_step"] for row in stored.rows(pair.servers[0].url, "local/demo/r1")]
    assert steps == list(range(40))


@pytest.mark.timeout(120)
def test_a_page_of_one_server_follows_what_arrives_at_another(pair: TwoServers) -> None:
    writer = ScriptedWriter()
    first, second = pair.servers
    with DoorStream(first.write_address) as stream, httpx.Client(base_url=second.url, timeout=20.0) as api:
        stream.open(writer)
        stream.send(writer.rows(1))
        stream.wait_durable(2)
        path = "/api/v1/runs/local/demo/r1"
        cursor = api.get(f"{path}/history", params={"keys": "loss"}).json()["cursor"]
        with api.stream("GET", f"{path}/live", params={"cursor": cursor, "keys": "loss"}) as response:
            events = EventReader(response)
            events.next()
            stream.send(writer.rows(3, first_step=1))
            moved = events.until(lambda event: bool(event.data.get("series")))[-1]
    assert moved.data["series"][0]["step_first"] == [1, 2, 3]


@pytest.mark.fault(81)
@pytest.mark.timeout(300)
def test_a_database_that_is_killed_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    with Cluster() as cluster, RunningServer(tmp_path / "data", "--store", cluster.url(cluster.new_database())) as server:
        training = Training(server.url, tmp_path, "killed")
        for _ in range(DATABASE_KILLS):
            training.go_on(for_s=0.5)
            cluster.kill()
            training.go_on(for_s=0.5)
            answer = httpx.get(f"{server.url}/api/v1/runs", timeout=30)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert training.run.status().backlog_frames > 0
            cluster.start()
            training.all_acked()
        training.check(server.url)
        record("databases killed", kills=DATABASE_KILLS, rows=training.logged)
        assert server.stop() == 0


@pytest.mark.fault(80)
@pytest.mark.timeout(300)
def test_connections_cut_at_any_moment_of_ingest_lose_and_double_nothing(cluster: Cluster, postgres_database: str, tmp_path: Path) -> None:
    with FaultProxy(cluster.port) as proxy:
        with RunningServer(tmp_path / "data", "--store", cluster.url(postgres_database, port=proxy.port)) as server:
            training = Training(server.url, tmp_path, "cut")
            for _ in range(COMMIT_CUTS):
                wait_until(lambda: proxy.open_links, "the server is connected again")
                training.go_on(for_s=0.15)
                proxy.reset_all()
            training.all_acked()
            training.check(server.url)
        record("connections to the database cut", cuts=COMMIT_CUTS, rows=training.logged)
    assert check.main(["--store", cluster.url(postgres_database)]) == 0


@pytest.mark.fault(81)
@pytest.mark.timeout(300)
def test_a_failover_to_a_synchronous_standby_loses_nothing_that_was_acked(tmp_path: Path) -> None:
    primary = Cluster({**FAST, "wal_level": "replica"})
    with primary, primary.standby() as standby:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        wait_until(lambda: primary.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == [(1,)], "it follows")
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://runferry@{hosts}/postgres?target_session_attrs=read-write"
        with RunningServer(tmp_path / "data", "--store", url) as server:
            training = Training(server.url, tmp_path, "failover")
            training.go_on(for_s=0.5)
            training.all_acked()
            acked = training.run.status().acked_frames
            primary.kill()
            standby.execute("ALTER SYSTEM RESET synchronous_standby_names")
            standby.promote()
            standby.execute("SELECT pg_reload_conf()")
            training.go_on(for_s=0.5)
            training.all_acked()

            assert acked > 0
            assert "the server has lost" not in (training.run.status().last_error or "")
            training.check(server.url)


@pytest.mark.fault(82)
@pytest.mark.timeout(300)
def test_a_lagging_standby_that_is_promoted_is_refilled_and_the_loss_is_told(tmp_path: Path) -> None:
    primary = Cluster({**FAST, "wal_level": "replica"})
    with primary, primary.standby() as standby:
        url = f"postgresql://runferry@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres?target_session_attrs=read-write"
        with RunningServer(tmp_path / "data", "--store", url) as server:
            training = Training(server.url, tmp_path, "lagging")
            training.log(500)
            training.all_acked()
            caught_up = "SELECT pg_current_wal_lsn() <= replay_lsn FROM pg_stat_replication"
            wait_until(lambda: primary.execute(caught_up) == [(True,)], "the standby has caught up")
            standby.stop()
            training.log(500)
            training.all_acked()
            primary.kill()
            standby.start()
            standby.promote()
            training.log(1)
            training.all_acked()

            assert "the server has lost" in (training.run.status().last_error or ""), training.run.status()
            training.check(server.url)
