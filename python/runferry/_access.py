"""How to get in: key and authorities of the settings, in the form that the native writer and the HTTP client take.

The native side reads the settings file itself, again and again, so that a new key is found while a training runs. What it gets as *the*
key is therefore only one that did not come from that file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runferry._http import Server
from runferry.settings import key_in_file, settings_file

if TYPE_CHECKING:
    from runferry.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """Plain values for `runferry._native`."""

    api_key: str | None = field(repr=False)
    settings_file: str
    ca_file: str | None
    sends_plain_key: bool


def access_of(settings: Settings) -> Access:
    """For a writer or a sync."""
    is_kept = settings.api_key is not None and settings.api_key == key_in_file()
    return Access(
        api_key=None if is_kept else settings.api_key,
        settings_file=str(settings_file()),
        ca_file=settings.ca_file,
        sends_plain_key=settings.insecure_key,
    )


def server_of(settings: Settings, base_url: str, *, timeout_s: float = 30.0) -> Server:
    """For requests."""
    return Server(base_url, api_key=settings.api_key, ca_file=settings.ca_file, sends_plain_key=settings.insecure_key, timeout_s=timeout_s)
