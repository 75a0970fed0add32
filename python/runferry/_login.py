"""`login`: which server this user's runs go to, kept in the settings file."""

from __future__ import annotations

from runferry._access import server_of
from runferry._settings_checks import as_base_url
from runferry._term import termwarn
from runferry.errors import UsageError
from runferry.settings import key_in_file, resolve, write_to_file

TYPE_CHECKING = False  # as in `__init__`
if TYPE_CHECKING:
    from runferry._http import Server
    from runferry.settings import Settings

LOGIN_TIMEOUT_S = 10.0


def login(  # noqa: PLR0913, PLR0917 - the signature of the W&B SDK
    key: str | None = None,
    relogin: bool | None = None,  # noqa: ARG001, FBT001 - accepted: every call writes what it is given
    host: str | None = None,
    force: bool | None = None,  # noqa: FBT001 - as in the W&B SDK
    timeout: float | None = None,
    verify: bool = True,  # noqa: FBT001, FBT002 - as in the W&B SDK
    **deprecated: object,
) -> bool:
    """Choose the server; the address and the key are kept in the settings file.

    Args:
        key: API key, for a server that wants one. A key kept for another server is forgotten.
        relogin: Accepted; every call writes what it is given.
        host: Address of the server, `http://host:port`. None: the one configured already.
        force: True: fail if no server is configured.
        timeout: Seconds to wait for the server. Default: 10.
        verify: Ask the address whether it is a Runferry server, and whether it takes the key, before they are kept.
        deprecated: `referrer`, `prompt` and `anonymous` of the W&B SDK, without effect.

    Returns:
        Whether a server is configured.

    Raises:
        UsageError: The address is none, or `force` and there is none.
        CommError: `verify`, and no Runferry server answers there. Nothing is kept then.
        AuthenticationError: `verify`, and the server refuses the key. Nothing is kept then.
    """
    unknown = set(deprecated) - {"referrer", "prompt", "anonymous"}
    if unknown:
        raise TypeError(f"login() got unexpected arguments: {', '.join(sorted(unknown))}")
    try:
        address = as_base_url(host) if host is not None else resolve().base_url
    except ValueError as error:
        raise UsageError(f"host {host!r}: {error}") from None
    if address is None:
        if force:
            raise UsageError("no server is configured: run `runferry login http://host:7070` or set RUNFERRY_BASE_URL")
        return False
    settings = resolve({"base_url": address, "api_key": key})
    kept_key = settings.api_key if key is not None or settings.api_key == key_in_file() else None
    if verify:
        _verify(server_of(settings, address, timeout_s=LOGIN_TIMEOUT_S if timeout is None else timeout), key, settings)
    changes: dict[str, str | None] = {}
    if host is not None:
        changes = {"base_url": address, "api_key": kept_key}  # None removes the key of another server
    elif key is not None:
        changes = {"api_key": key}
    if changes:
        write_to_file(changes)

    return True


def _verify(server: Server, key: str | None, settings: Settings) -> None:
    """Ask whether a server is there and takes the key; say so if it wants one and there is none.

    Raises:
        CommError: No Runferry server answers.
        AuthenticationError: It refuses the key.
    """
    wants_key = server.door().get("wants_key")
    if key is not None:
        server.get(["session"])
    elif wants_key and settings.api_key is None:
        termwarn(f"{settings.base_url} wants a key and none is known: nothing is sent until `runferry login` or RUNFERRY_API_KEY gives one")
