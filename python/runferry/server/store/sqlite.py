"""The store on SQLite: `store.db` says which shard holds a run, `metrics-00.db` ... hold the runs.

A run's shard is drawn once, from its id, and then written down: it never moves. Each shard has one writing connection.
"""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from typing import TYPE_CHECKING

from runferry.server.store.chunked import ChunkedStore
from runferry.server.store.protocol import StoreError
from runferry.server.store.shard import Connect, SqliteFile, network_file_system

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARDS = 8


class SqliteStore(ChunkedStore):
    """A `Store` (see `protocol`) in the SQLite files of one directory.

    Args:
        directory: Made if it is not there.
        shards: Number of files of a new store; an old one keeps its number.
        synchronous: `FULL` survives power loss, `NORMAL` only the death of the server.
        merging: Merge in a background thread; else only `merge` does.
        force_network: Open the store on a network file system all the same.
        connect: Opens connections, as `sqlite3.connect`.

    Raises:
        StoreError: The directory cannot hold a store, or holds one of another version.
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        directory: Path,
        *,
        shards: int = SHARDS,
        synchronous: str = "FULL",
        merging: bool = True,
        force_network: bool = False,
        connect: Connect = sqlite3.connect,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise StoreError(f"synchronous is {synchronous!r}, expected FULL or NORMAL")
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{directory}: {error.strerror}") from error
        network = network_file_system(directory)
        if network is not None and not force_network:
            raise StoreError(f"{directory} is on a network file system ({network}), where SQLite loses data; choose a local directory")
        super().__init__()
        self._index = SqliteFile(directory / "store.db", connect=connect, is_shard=False)
        self._shards: list[SqliteFile] = []
        try:
            self._epoch, count = self._identity(shards)
            for number in range(count):
                self._shards.append(SqliteFile(directory / f"metrics-{number:02}.db", synchronous=synchronous, connect=connect))
        except BaseException:
            self.close()
            raise
        self._shard_of: dict[bytes, SqliteFile] = {}
        self._begin(merging=merging)

    def _identity(self, shards: int) -> tuple[bytes, int]:
        with self._index.writing() as connection:
            fresh = [("epoch", secrets.token_bytes(16)), ("shards", shards)]
            connection.executemany("INSERT INTO store(name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", fresh)
            values = dict(connection.execute("SELECT name, value FROM store").fetchall())
        return values["epoch"], values["shards"]

    @property
    def epoch(self) -> bytes:
        """16 random bytes, new for each created database."""
        return self._epoch

    def _databases(self) -> Sequence[SqliteFile]:
        return self._shards

    def _find_shard(self, run_id: bytes) -> SqliteFile | None:
        found = self._shard_of.get(run_id)
        if found is None:
            with self._index.reading() as connection:
                row = connection.execute("SELECT shard FROM run_shard WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                return None
            found = self._shard_of[run_id] = self._shards[row[0]]
        return found

    def _shard(self, run_id: bytes) -> SqliteFile:
        """The run's shard; drawn if it has none."""
        return self._choose_shards([run_id])[run_id]

    def _choose_shards(self, run_ids: Sequence[bytes]) -> dict[bytes, SqliteFile]:
        """The runs' shards; drawn for those that have none, all in one transaction."""
        found = {run_id: self._find_shard(run_id) for run_id in run_ids}
        fresh = [run_id for run_id, shard in found.items() if shard is None]
        if fresh:
            drawn = [(run_id, zlib.crc32(run_id) % len(self._shards)) for run_id in fresh]
            with self._index.writing() as connection:
                connection.executemany("INSERT INTO run_shard(run_id, shard) VALUES (?, ?) ON CONFLICT DO NOTHING", drawn)
                query = "SELECT shard FROM run_shard WHERE run_id = ?"
                written = {run_id: int(connection.execute(query, (run_id,)).fetchone()[0]) for run_id in fresh}
            self._shard_of |= {run_id: self._shards[number] for run_id, number in written.items()}
        return {run_id: shard or self._shard_of[run_id] for run_id, shard in found.items()}

    def close(self) -> None:
        """Ends the merger and closes every file; calls after that raise `StoreError`."""
        super().close()
        self._index.close()
