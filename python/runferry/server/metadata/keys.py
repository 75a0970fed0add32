"""API keys at rest: made, listed, revoked. The key itself is never stored.

A key is `rf_`, eight hexadecimal digits that name it, `_`, and 256 random bits. The name part is what lists show; of the whole only
the BLAKE2b hash is kept. The bits are random, so no salt and no slow hash are needed: nobody can try 2^256 of them.

A revoked key keeps its row: who used it when stays visible, and its id never means another key.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from runferry.server.metadata.schema import api_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.engine import Connection

SCOPES = ("read", "write")
NAME_CHARS = 100
_ID_CHARS = len("rf_01234567")


class KeyNameError(ValueError):
    """The name cannot be given, or names no key; the message says which."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored."""

    key_id: str
    """`rf_` and eight hexadecimal digits: fit to be shown."""
    name: str
    secret_hash: bytes
    scopes: frozenset[str]
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    last_used_us: int | None

    def refusal(self, now_us: int) -> str | None:
        """Why it opens nothing any more, or None: it does."""
        if self.revoked_us is not None:
            return f"the key {self.key_id} ({self.name}) was revoked"
        if self.expires_us is not None and self.expires_us <= now_us:
            return f"the key {self.key_id} ({self.name}) has expired"
        return None


def key_id_of(secret: str) -> str:
    """The part of a key that names it."""
    return secret[:_ID_CHARS]


def hash_of(secret: str) -> bytes:
    """What is stored of a key."""
    return hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def add_key(connection: Connection, name: str, scopes: Iterable[str], *, now_us: int, expires_us: int | None) -> str:
    """Make a key; returns it whole, for the only time.

    Raises:
        KeyNameError: The name is empty, too long, not printable, or that of a key that is not revoked.
    """
    if not name or len(name) > NAME_CHARS or not name.isprintable():
        raise KeyNameError(f"name {name!r}: a name has 1 to {NAME_CHARS} printable characters")
    if any(key.name == name and key.revoked_us is None for key in all_keys(connection)):
        raise KeyNameError(f"name {name!r}: a key of this name exists; revoke it first, or choose another name")
    secret = f"rf_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    granted = set(scopes)
    connection.execute(
        sa.insert(api_key).values(
            key_id=key_id_of(secret),
            name=name,
            secret_hash=hash_of(secret),
            can_read=int("read" in granted),
            can_write=int("write" in granted),
            created_us=now_us,
            expires_us=expires_us,
        )
    )
    return secret


def revoke_key(connection: Connection, name_or_id: str, *, now_us: int) -> ApiKey:
    """Revoke the key with this id, or the one of this name that is not revoked.

    Raises:
        KeyNameError: There is none.
    """
    for key in all_keys(connection):
        if key.revoked_us is None and name_or_id in {key.name, key.key_id}:
            connection.execute(sa.update(api_key).where(api_key.c.key_id == key.key_id).values(revoked_us=now_us))
            return key
    raise KeyNameError(f"{name_or_id!r} is neither the name nor the id of a key that is in force")


def all_keys(connection: Connection) -> list[ApiKey]:
    """Every key there ever was, the oldest first."""
    return [_key(row) for row in connection.execute(sa.select(api_key).order_by(api_key.c.created_us)).mappings()]


def write_uses(connection: Connection, uses: Mapping[str, int]) -> None:
    """Keep when keys were last used."""
    for key_id, used_us in uses.items():
        connection.execute(sa.update(api_key).where(api_key.c.key_id == key_id).values(last_used_us=used_us))


def _key(row: Mapping[Any, Any]) -> ApiKey:
    scopes = frozenset(scope for scope in SCOPES if row[f"can_{scope}"])
    same = ("key_id", "name", "secret_hash", "created_us", "expires_us", "revoked_us", "last_used_us")
    return ApiKey(scopes=scopes, **{field: row[field] for field in same})
