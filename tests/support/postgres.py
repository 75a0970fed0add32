"""A PostgreSQL cluster of the tests' own: made and started in a scratch folder, killed, restarted, filled up. Never one of the system.

PostgreSQL refuses to run as root, so root starts it as another user; its binaries need not be on the PATH (Debian keeps them off it).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PLACES = "/usr/lib/postgresql/*/bin"
USERS = ("postgres", "nobody")
LIMIT_S = 30.0
FAST: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
"""Survives the death of its processes, and nobody cuts the power of a test."""
DURABLE: Mapping[str, str] = {"fsync": "on"}


def binaries() -> Path:
    """Where PostgreSQL's programs lie; skips the test if there are none."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else sorted(Path("/").glob(f"{PLACES[1:]}/initdb"), key=_version)
    if not found:
        pytest.skip(f"not run: PostgreSQL is not installed (neither on the PATH nor in {PLACES})")
    return found[-1].parent


def _version(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdigit() else 0


def _as_other_user() -> tuple[Sequence[str], int, int]:
    """Words before a command, and whose files the cluster's are."""
    if os.getuid() != 0:
        return (), os.getuid(), os.getgid()
    for name in USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        words = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
        return words, user.pw_uid, user.pw_gid
    pytest.skip(f"not run: PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


class Cluster:
    """A cluster on a port of this machine; a context manager."""

    def __init__(
        self, settings: Mapping[str, str] = FAST, *, folder: Path | None = None, wal_elsewhere: bool = False, is_copy: bool = False
    ) -> None:
        """Make it; in `folder`, which may be a small disk (with `wal_elsewhere` for its data alone). Skips the test where it cannot."""
        pytest.importorskip("psycopg", reason="not run: psycopg is not installed")
        self._binaries = binaries()
        self._prefix, uid, gid = _as_other_user()
        self._own = Path(tempfile.mkdtemp(prefix="runferry-pg-"))
        self._own.chmod(0o755)
        self.folder = folder if folder is not None else self._own
        self.data = self.folder / "data"
        self.log = self._own / "log"
        self.port = free_port()
        self.settings = dict(settings)
        self._names = count(1)
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        os.chown(self._own, uid, gid)
        os.chown(self.folder, uid, gid)
        if is_copy:
            return
        words = ("--pgdata", str(self.data), "--username=runferry", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        place = (f"--waldir={self._own / 'wal'}",) if wal_elsewhere else ()
        self.run("initdb", *words, *place, "--no-instructions")

    def run(self, program: str, *words: str) -> None:
        """Run one of PostgreSQL's programs, as the cluster's user."""
        command = [*self._prefix, str(self._binaries / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * LIMIT_S, cwd="/", env=_environment())
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def url(self, database: str = "postgres", *, port: int = 0) -> str:
        """Of a database of it; `port` of what stands before it."""
        return f"postgresql://runferry@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> Cluster:
        """Start it, and wait until it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._own),
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",
            **self.settings,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, str(self._binaries / "postgres"), "-D", str(self.data), *words],
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop(signal.SIGQUIT)
            raise
        return self

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + LIMIT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            found = subprocess.run(
                [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False, timeout=LIMIT_S
            )
            if found.returncode == 0:
                return
            time.sleep(0.02)
        raise AssertionError(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}")

    def standby(self) -> Cluster:
        """A copy that follows this one, not started yet; this one has to run."""
        copy = Cluster(self.settings, is_copy=True)
        words = ("-D", str(copy.data), "-h", "127.0.0.1", "-p", str(self.port), "-U", "runferry", "-R", "--checkpoint=fast", "--no-sync")
        self.run("pg_basebackup", *words)
        return copy

    def promote(self) -> None:
        """The standby becomes a primary."""
        self.run("pg_ctl", "promote", "-D", str(self.data), "-w")

    @property
    def pid(self) -> int:
        """Of its first process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is its fast shutdown, SIGQUIT its immediate one."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(LIMIT_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL of it and of every process it has, as when the machine's memory runs out."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii").split()
        self._process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""
        import psycopg  # noqa: PLC0415 - may be missing; see __init__

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload,unused-ignore]
            return list(cursor.fetchall()) if cursor.description else []

    def new_database(self, template: str = "template1") -> str:
        """Make a database; returns its name."""
        name = f"db{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def borrow(self) -> str:
        """The name of a database without any data; cheaper than a new one."""
        if not self._free:
            return self.new_database()
        name = self._free.pop()
        query = (
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables "
            "WHERE schemaname LIKE 'runferry%' AND tablename NOT IN ('store', 'slots', 'alembic_version')"
        )
        tables = [table for (table,) in self.execute(query, name)]
        if tables:
            self.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY", name)
        if self.execute("SELECT to_regclass('runferry.slots') IS NOT NULL", name) == [(True,)]:
            self.execute("UPDATE runferry.slots SET current = 0", name)
        return name

    def give_back(self, name: str) -> None:
        """Nobody uses the database any more; its tables are as they were made."""
        self._free.append(name)

    def __enter__(self) -> Cluster:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Start it for the length of a block."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop it, and leave nothing behind."""
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self._own, ignore_errors=True)
