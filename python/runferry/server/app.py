"""One server process: opens the folder, both databases and both doors, and closes them in the opposite order.

# Order
Opening: folder lock, metadata (migrated), store, threads, write door, read door, then the one line that says so. The read
door opens last: who gets an answer from it can write too.

# Shutdown
SIGTERM and SIGINT: live answers end, the write door drains (everything received is committed and acked), the read door
closes, documents are applied, the databases close; exit code 0. A second signal changes nothing: the drain is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from runferry import _native
from runferry.server.adopt import start_following
from runferry.server.apply import Applier
from runferry.server.auth import Gate, Keyring
from runferry.server.certificates import LOOK_EVERY_S, CertificateError, Certificates
from runferry.server.data_dir import DataDir, DataDirError
from runferry.server.http.app import read_door
from runferry.server.http.context import ReadContext
from runferry.server.http.slow_heads import impatient_protocol
from runferry.server.ingest.door import Ingest, PortInUseError, WriteDoor
from runferry.server.live import Hub
from runferry.server.metadata.database import Database, NewerSchemaError
from runferry.server.query import Query, now_us
from runferry.server.room import DiskRoom
from runferry.server.settings import Advertised
from runferry.server.store.protocol import StoreError
from runferry.server.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

    from runferry.server.settings import Limits, Settings
    from runferry.server.store.protocol import Store

logger = logging.getLogger(__name__)

EXIT_REFUSED = 2
READ_THREADS = 16
HTTP_SHUTDOWN_S = 5
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 2 << 20
KEPT_FREE_BYTES = 32 << 20
NEW_OBJECTS_A_COLLECTION = 50_000
# A thousand metric names fit into one address. The parser's own 16 KiB are measured only while a head is incomplete,
# so the same long address would pass or fail by how the network cut it.
MAX_HEAD_BYTES = 256 << 10


class StartError(Exception):
    """The server cannot start; the message says why and which option helps."""


def run_server(settings: Settings) -> int:
    """Serve until a signal; returns the exit code: 0 after a drain, 2 if the server could not start."""
    _give_large_blocks_back()
    _collect_seldom()
    try:
        asyncio.run(_serve(settings))
    except (StartError, DataDirError, NewerSchemaError) as error:
        print(f"runferry server: {error}", file=sys.stderr)  # noqa: T201 - the answer to the command
        return EXIT_REFUSED
    return 0


def _give_large_blocks_back() -> None:
    """Memory of large blocks goes back to the system when they are freed.

    glibc maps them at first, but once one was freed it keeps blocks of that size in the heap of each thread that ever had one:
    after a few answers of many megabytes the server would hold their sum for good. What is smaller is used again: a merge frees and
    takes megabytes of it many times a second, and pages given back and taken anew cost more than what is done with them.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def _collect_seldom() -> None:
    """The search for cycles of garbage passes over what the modules made, and comes after more new objects than by default.

    A merge makes some ten thousand tuples, none of them in a cycle; for each seven hundred of them the search began anew, and looked at
    everything the process holds every hundredth time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_A_COLLECTION, 10, 10)


async def _serve(settings: Settings) -> None:
    if settings.require_keys and settings.insecure_no_auth:
        raise StartError("--require-keys and --insecure-no-auth contradict each other: give one of them")
    certificates = _certificates(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if certificates is not None:
        loop.add_signal_handler(signal.SIGHUP, certificates.renew)
    with contextlib.ExitStack() as stack:
        data_dir = stack.enter_context(DataDir(settings.data_dir)) if settings.store is None else None
        read_socket = stack.enter_context(listen(settings.host, settings.port))
        database = _open_metadata(data_dir.metadata_file if data_dir is not None else settings.store)
        stack.callback(database.close)
        store = _open_store(data_dir.store_dir if data_dir is not None else settings.store)
        stack.callback(store.close)
        await _open_doors(settings, database, store, read_socket, certificates, stopping)


def _open_metadata(place: Path | str | None) -> Database:
    assert place is not None  # noqa: S101 - one of the two
    try:
        return Database(place)
    except ImportError as error:
        raise StartError(f"--store needs psycopg, which cannot be loaded ({error}): pip install 'runferry[server,postgres]'") from error
    except StoreError as error:
        raise StartError(f"cannot open the metadata: {error}") from error


def _open_store(place: Path | str | None) -> Store:
    assert place is not None  # noqa: S101 - one of the two
    try:
        if isinstance(place, Path):
            return SqliteStore(place)
        from runferry.server.store.postgres import PostgresStore  # noqa: PLC0415 - needs psycopg, which not everybody has

        return PostgresStore(place)
    except StoreError as error:
        raise StartError(f"cannot open the store: {error}") from error


async def _open_doors(  # noqa: PLR0913, PLR0917 - what was opened, each once
    settings: Settings,
    database: Database,
    store: Store,
    read_socket: socket.socket,
    certificates: Certificates | None,
    stopping: asyncio.Event,
) -> None:
    """Everything that runs between the opening and the closing of the databases."""
    hub = Hub(asyncio.get_running_loop())
    stop_news = _exchange_news(settings.store, hub)
    applier = Applier(database, store, hub, is_shared=settings.store is not None)
    gate = Gate(Keyring(database, now_us), is_required=settings.wants_keys)
    room = DiskRoom(settings.data_dir, settings.limits.keep_free_bytes if settings.store is None else 0)
    door = WriteDoor(Ingest(database, store, applier, hub, gate, settings.limits, room), certificates)
    read_port: int = read_socket.getsockname()[1]
    try:
        write_port = await door.open(settings.host, settings.port + 1 if settings.port else 0)
    except PortInUseError as error:
        raise StartError(
            f"port {settings.port + 1} on {settings.host}, needed for the write door, is in use: "
            f"choose another with --port (the write door takes the one behind it)"
        ) from error
    threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="rf-read")
    context = ReadContext(
        query=Query(database, store),
        store=store,
        hub=hub,
        gate=gate,
        limits=settings.limits,
        threads=threads,
        version=_native.__version__,
        write=settings.advertised_write or Advertised(None, write_port),
        has_tls=certificates is not None,
    )
    applier.start()
    base_url = f"{'https' if context.has_tls else 'http'}://{_shown_host(settings.host)}:{read_port}"
    http = _HttpServer(read_door(context, is_loopback=settings.is_loopback), settings.limits, certificates)
    chores = [asyncio.create_task(gate.run()), asyncio.create_task(_renew(certificates))]
    serving = asyncio.create_task(http.serve(sockets=[read_socket]))
    stop_following: Callable[[], None] | None = None
    try:
        await http.ready(serving)
        if context.has_tls:
            if settings.adopt:
                logger.warning("journals in %s are not followed by a server that speaks TLS: use runferry sync", settings.adopt[0])
        else:
            stop_following = start_following(settings.adopt, base_url, gate.keyring.own_secret)
        _warn(settings, gate)
        print(f"runferry server: {base_url} (write door {write_port}, data {settings.shown_place})", flush=True)  # noqa: T201 - the answer to the command
        await asyncio.wait({serving, asyncio.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if stop_following is not None:
            await asyncio.to_thread(stop_following)
        for chore in chores:
            chore.cancel()
        hub.close()
        await door.close()
        http.should_exit = True
        await serving
        await asyncio.to_thread(applier.stop)
        await asyncio.to_thread(stop_news)
        threads.shutdown(wait=True, cancel_futures=True)
        await asyncio.gather(*chores, return_exceptions=True)


def _exchange_news(url: str | None, hub: Hub) -> Callable[[], None]:
    """Hears of other servers what their runs do, and tells them of ours; returns what ends it."""
    if url is None:
        return lambda: None
    from runferry.server.news import News  # noqa: PLC0415 - needs psycopg, which not everybody has

    news = News(url, lambda item: hub.heard_from_thread(*item), hub.look_all_from_thread)
    hub.tell_others = news.tell
    news.start()
    return news.stop


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise StartError("--tls-cert and --tls-key go together: give both")
    try:
        return Certificates(settings.tls_cert, settings.tls_key)
    except CertificateError as error:
        raise StartError(str(error)) from error


async def _renew(certificates: Certificates | None) -> None:
    while certificates is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        certificates.renew()


def _warn(settings: Settings, gate: Gate) -> None:
    """Say what the user may not have meant."""
    if gate.is_required and gate.keyring.is_empty:
        _say(f"no key opens this server yet: runferry server keys add NAME {settings.place_option}")
    if not settings.is_loopback and settings.tls_cert is None:
        _say("without --tls-cert and --tls-key all data crosses the network unencrypted, and clients do not send their keys")
    if settings.insecure_no_auth and not settings.is_loopback:
        _say(f"whoever can connect to {settings.host} can read, write and delete")


def _say(text: str) -> None:
    print(f"runferry server: {text}", file=sys.stderr, flush=True)  # noqa: T201 - read by whoever started it


class _HttpServer(uvicorn.Server):
    """uvicorn on our loop: signals are ours, and so is the one line that says where it listens."""

    def __init__(self, app: ASGIApp, limits: Limits, certificates: Certificates | None) -> None:
        config = uvicorn.Config(
            app,
            http=impatient_protocol(limits.http_head_timeout_s),
            limit_concurrency=limits.max_http_connections,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=HTTP_SHUTDOWN_S,
            server_header=False,
            timeout_keep_alive=65,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        config.load()
        if certificates is not None:
            config.ssl = certificates.context  # not files by name: a renewal is loaded into this very context
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def ready(self, serving: asyncio.Task[None]) -> None:
        """Wait until it answers."""
        while not self.started:
            if serving.done():
                serving.result()
                raise StartError("the read door did not start")
            await asyncio.sleep(0.005)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket of the read door.

    Raises:
        StartError: The address or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its name: only where a socket says that it is TCP asyncio sends without waiting, and else an answer in two parts waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} on {host} is in use: choose another with --port (0: any free one)") from error
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}; choose with --host and --port") from error
    except OverflowError as error:
        listening.close()
        raise StartError(f"port {port} is not a port: choose one from 0 to 65534 with --port") from error
    return listening


def _shown_host(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - shown, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
