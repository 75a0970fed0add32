"""Who may come in: keys and sessions, checked for both doors.

`Keyring` knows the keys and decides; it blocks where it reads the database. `Gate` belongs to the event loop: it asks the keyring for
each request and stream, reads the keys again every second (`runferry server keys` is another process), and tells those that are inside
when their key is no longer good.

# Sessions
A browser gets a cookie that holds no key: the key's id, an end, and an HMAC of both under the stored hash of the key. Nothing is kept
for it on the server, it survives a restart, and it ends with its key.

# Failure
A database that does not answer leaves the keys as they were read last.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from runferry.server.metadata import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from runferry.server.metadata.database import Database

logger = logging.getLogger(__name__)

REFRESH_S = 1.0
USE_RESOLUTION_US = 60 * 1_000_000
SESSION_DAYS = 30
_US_PER_DAY = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key that was shown opens."""

    key_id: str
    name: str
    scopes: frozenset[str]


class DeniedError(Exception):
    """No key, a wrong one, or one that does not open this; the message says which and holds nothing of the key but its id."""

    def __init__(self, reason: str, *, is_scope: bool = False) -> None:
        """`is_scope`: the key is good, for something else."""
        super().__init__(reason)
        self.is_scope = is_scope


OWN_GRANT = Grant("own", "this server", frozenset({"write"}))


class Keyring:
    """All keys, as read last; safe from any thread."""

    def __init__(self, database: Database, clock_us: Callable[[], int]) -> None:
        """Read from this database; `clock_us` is wall time, by which keys expire."""
        self._database = database
        self._clock_us = clock_us
        self._keys: dict[str, keys.ApiKey] = {}
        self._uses: dict[str, int] = {}
        self._refreshing = threading.Lock()
        self.own_secret = secrets.token_urlsafe(32)
        """A key for what runs inside this process; it is never stored and ends with it."""
        self.refresh()

    @property
    def is_empty(self) -> bool:
        """No key opens anything."""
        now_us = self._clock_us()
        return all(key.refusal(now_us) for key in self._keys.values())

    def refresh(self) -> None:
        """Read the keys again, and write when they were used. Blocks."""
        with self._refreshing:
            try:
                with self._database.read() as connection:
                    found = {key.key_id: key for key in keys.all_keys(connection)}
                self._keys = found
                due = {key_id: at for key_id, at in self._uses.items() if key_id in found and _is_news(found[key_id], at)}
                if due:
                    with self._database.write() as connection:
                        keys.write_uses(connection, due)
            except sa.exc.SQLAlchemyError as error:
                logger.error("the keys cannot be read, the ones known stay in force: %s", error)  # noqa: TRY400 - its place is known

    def grant(self, secret: str) -> Grant:
        """What a key opens.

        Raises:
            DeniedError: It is none, or none any more.
        """
        if hmac.compare_digest(secret.encode("utf-8", "surrogatepass"), self.own_secret.encode("ascii")):
            return OWN_GRANT
        key = self._keys.get(keys.key_id_of(secret))
        if key is None or not hmac.compare_digest(key.secret_hash, keys.hash_of(secret)):
            raise DeniedError("the key is not one of this server's")
        return self._granted(key)

    def session(self, grant: Grant) -> str:
        """A cookie's value in place of the key."""
        end = str(self._clock_us() + SESSION_DAYS * _US_PER_DAY)
        return f"{grant.key_id}.{end}.{_signature(self._keys[grant.key_id], end)}"

    def session_grant(self, value: str) -> Grant:
        """What a session opens.

        Raises:
            DeniedError: It has ended, was never one, or its key is none any more.
        """
        key_id, _, rest = value.partition(".")
        end, _, signature = rest.partition(".")
        key = self._keys.get(key_id)
        # Over the very text that was shown: a number has many spellings, and only one was signed.
        is_ours = key is not None and value.isascii() and hmac.compare_digest(_signature(key, end), signature)
        if key is None or not is_ours or int(end) <= self._clock_us():
            raise DeniedError("the session has ended: log in again")
        return self._granted(key)

    def refusal(self, grant: Grant) -> str | None:
        """Why a grant is no longer good, or None: it is."""
        if grant is OWN_GRANT:
            return None
        key = self._keys.get(grant.key_id)
        return f"the key {grant.key_id} is gone" if key is None else key.refusal(self._clock_us())

    def _granted(self, key: keys.ApiKey) -> Grant:
        now_us = self._clock_us()
        refusal = key.refusal(now_us)
        if refusal is not None:
            raise DeniedError(refusal)
        self._uses[key.key_id] = now_us
        return Grant(key.key_id, key.name, key.scopes)


class Gate:
    """What both doors ask; used on the event loop only."""

    def __init__(self, keyring: Keyring, *, is_required: bool) -> None:
        """Let in who has a key of this ring, or everybody."""
        self.keyring = keyring
        self.is_required = is_required
        self._refreshed = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self._reading = asyncio.Lock()
        self._readings = 0

    def watch(self, look: Callable[[], None]) -> None:
        """Call `look` each time the keys were read again."""
        self._watchers.append(look)

    async def admit(self, secret: str | None, scope: str | None, *, session: str | None = None) -> Grant | None:
        """The grant of a key or session; None where none is needed.

        Raises:
            DeniedError: It does not open `scope`; None: anything at all.
        """
        if not self.is_required:
            return None
        if not secret and not session:
            raise DeniedError("this server wants a key: `runferry login URL` keeps one, RUNFERRY_API_KEY names one")
        try:
            grant = self._look(secret, session)
        except DeniedError:
            await self._read_again()  # made a moment ago, perhaps
            grant = self._look(secret, session)
        if scope is not None and scope not in grant.scopes:
            raise DeniedError(f"the key {grant.key_id} ({grant.name}) may {' and '.join(sorted(grant.scopes))}, not {scope}", is_scope=True)
        return grant

    async def until_refused(self, grant: Grant) -> str:
        """Wait until the grant is no longer good; returns why."""
        while (reason := self.keyring.refusal(grant)) is None:
            await self._refreshed.wait()
        return reason

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._read_again()
            refreshed, self._refreshed = self._refreshed, asyncio.Event()
            refreshed.set()
            for look in self._watchers:
                look()

    async def _read_again(self) -> None:
        """Read the keys; one reading serves all who asked before it began, so a flood of wrong keys costs no more than one at a time."""
        asked_at = self._readings
        async with self._reading:
            if self._readings == asked_at:
                self._readings += 1
                await asyncio.to_thread(self.keyring.refresh)

    def _look(self, secret: str | None, session: str | None) -> Grant:
        return self.keyring.grant(secret) if secret else self.keyring.session_grant(session or "")


def bearer(header: str | None) -> str | None:
    """The key in an `Authorization` header."""
    scheme, _, secret = (header or "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def _signature(key: keys.ApiKey, end: str) -> str:
    return hmac.new(key.secret_hash, f"session {key.key_id} {end}".encode("ascii"), hashlib.sha256).hexdigest()


def _is_news(key: keys.ApiKey, used_us: int) -> bool:
    return key.last_used_us is None or used_us - key.last_used_us >= USE_RESOLUTION_US
