"""The client's side of the read door (`docs/http-api.md`): one GET, answered or refused.

What each `init` asks (is this Runferry, is the key good) is small and asked by the native module, as the sender does. `http.client`,
which brings 4 MiB of TLS, is imported where a program reads: answers of any length, as they arrive. A key is sent only to an address that
has answered `GET /api/v1/door` as Runferry in this process, over the same scheme.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from runferry.errors import AuthenticationError, CommError, NotFoundError, NotRunferryError, UnreachableError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from http.client import HTTPConnection, HTTPResponse

_UNAUTHORIZED = {401, 403}
_OK = 200
_NOT_FOUND = 404
_MESSAGE_MAX_BYTES = 64 << 10


class Server:
    """A Runferry server by its address. Each request has a connection of its own; safe from any thread.

    Args:
        base_url: `http://host:port` or `https://host:port`; what says https is never asked without TLS.
        api_key: Shown to a Runferry server only, and over plain http to this machine only.
        ca_file: PEM file of authorities, read at each connection. None: the system's.
        sends_plain_key: Show the key over plain http to other machines too.
        timeout_s: For each single wait.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        ca_file: str | None = None,
        sends_plain_key: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        self.base_url = base_url
        self._ca_file = ca_file
        self._is_withheld = api_key is not None and not sends_plain_key and not _keeps_secrets(base_url)
        self._api_key = None if self._is_withheld else api_key
        self._timeout_s = timeout_s
        self._is_runferry = False

    def door(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """The door's description.

        Raises:
            UnreachableError: No connection or no answer in time.
            UntrustedError: Its certificate is not to be believed.
            NotRunferryError: Another service answers.
        """
        status, _, body = self._ask("/api/v1/door", key=None, timeout_s=timeout_s)
        try:
            door = _json(body) if status == _OK else None
        except CommError:
            door = None
        if not isinstance(door, dict) or door.get("service") != "runferry":
            raise NotRunferryError(f"{self.base_url} answers, but is no Runferry server")
        self._is_runferry = True
        return door

    def get(self, path: Sequence[str], query: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        """The JSON object at `/api/v1/` + `path`; its parts are quoted here.

        Raises:
            NotFoundError: The server has no such thing.
            AuthenticationError: It wants a key or refuses the one given.
            CommError: Any other refusal, and whatever `door` raises.
        """
        with self.stream(path, query, timeout_s=timeout_s) as response:
            try:
                answer = _json(response.read())
            except OSError as error:
                raise UnreachableError(f"{self.base_url} broke off its answer: {error}") from error
            except CommError as error:
                raise NotRunferryError(f"{self.base_url} answers, but is no Runferry server: {error}") from error
        if not isinstance(answer, dict):
            raise CommError(f"{self.base_url} sent an answer that is not a JSON object for {'/'.join(path)}")
        return answer

    def check_key(self, scope: str, *, timeout_s: float | None = None) -> None:
        """Ask what the key opens.

        Raises:
            AuthenticationError: Nothing, or not `scope` ("read" or "write").
            CommError: Whatever else `get` raises.
        """
        path = "/api/v1/session"
        status, reason, body = self._ask(path, key=self._key_to_show(timeout_s), timeout_s=timeout_s)
        if status != _OK:
            raise self._refusal(path, status, reason, body)
        session = _json(body)
        scopes = session.get("scopes") if isinstance(session, dict) else None
        if isinstance(scopes, list) and scope not in scopes:
            raise AuthenticationError(f"{self.base_url} refuses the key: {session.get('name')} may not {scope}")

    @contextmanager
    def stream(
        self, path: Sequence[str], query: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Iterator[HTTPResponse]:
        """The body as it arrives. Raises what `get` does; `timeout_s` bounds each single wait."""
        url_path = "/api/v1/" + "/".join(quote(part, safe="") for part in path)
        with self._open(url_path, query, key=self._key_to_show(timeout_s), timeout_s=timeout_s) as response:
            if response.status != _OK:
                raise self._refusal(url_path, response.status, response.reason, _start_of(response))
            yield response

    def _key_to_show(self, timeout_s: float | None) -> str | None:
        """The key, once the address has said that it is Runferry."""
        if self._api_key is not None and not self._is_runferry:
            self.door(timeout_s=timeout_s)
        return self._api_key

    def _ask(self, path: str, *, key: str | None, timeout_s: float | None) -> tuple[int, str, bytes]:
        """Status, its name and the body of a short answer."""
        from runferry import _native  # noqa: PLC0415 - 5 ms that `import runferry` shall not cost

        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return _native.ask(self.base_url, path, api_key=key, ca_file=self._ca_file, timeout_s=timeout_s)

    @contextmanager
    def _open(self, path: str, query: Mapping[str, Any] | None, *, key: str | None, timeout_s: float | None) -> Iterator[HTTPResponse]:
        import ssl  # noqa: PLC0415 - 15 ms that most processes never need
        from http.client import HTTPException  # noqa: PLC0415 - as above

        connection = self._connection(self._timeout_s if timeout_s is None else timeout_s)
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = urlsplit(self.base_url).path + path + (f"?{urlencode(given, doseq=True)}" if given else "")
        headers = {"Accept": "application/json, application/vnd.runferry.frames"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            try:
                _look_up(connection.host, connection.port, connection.timeout)
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                raise UntrustedError(f"the certificate of {self.base_url} is not trusted: {error.verify_message}") from error
            except ssl.SSLError as error:
                raise NotRunferryError(f"{self.base_url} does not speak TLS as it should: {error.reason}") from error
            except OSError as error:
                raise UnreachableError(f"{self.base_url} cannot be reached: {_cause(error)}") from error
            except (HTTPException, ValueError) as error:
                raise NotRunferryError(f"{self.base_url} answers, but is no Runferry server: {_cause(error)}") from error
            yield response
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - as above

        parts = urlsplit(self.base_url)
        if parts.scheme != "https":
            return HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        import ssl  # noqa: PLC0415 - as above

        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:  # a missing file, and what is no certificate (SSLError)
            raise UntrustedError(f"no authorities can be read from {self._ca_file}: {_cause(error)}") from error
        return HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)

    def _refusal(self, path: str, status: int, reason: str, body: bytes) -> CommError:
        try:
            answer = _json(body)
        except CommError:
            answer = None
        told = answer.get("error") if isinstance(answer, dict) else None
        text = told.get("message") if isinstance(told, dict) else None
        if status == _NOT_FOUND:
            if text is None:
                return NotRunferryError(f"{self.base_url} does not know {path}: is it a Runferry server?")
            return NotFoundError(f"{text} ({self.base_url})")
        if status in _UNAUTHORIZED:
            if self._is_withheld:
                return AuthenticationError(
                    f"{self.base_url} wants a key, and http would show it to anybody on the way: use https "
                    "(RUNFERRY_INSECURE_KEY=1 sends it all the same)"
                )
            return AuthenticationError(f"{self.base_url} refuses the key: {text or reason}")
        return CommError(f"{self.base_url}{path} answers {status}: {text or reason}")


def _start_of(response: HTTPResponse) -> bytes:
    try:
        return response.read(_MESSAGE_MAX_BYTES)
    except OSError:
        return b""


def _look_up(host: str, port: int, timeout_s: float | None) -> None:
    """Wait for the resolver, but not longer than for the server: the system's own patience with it cannot be set.

    Raises:
        TimeoutError: No answer in time. The thread that asked ends when the resolver does.
        OSError: The name is not known.
    """
    import socket  # noqa: PLC0415 - as above
    from queue import Empty, SimpleQueue  # noqa: PLC0415 - as above
    from threading import Thread  # noqa: PLC0415 - as above

    answer: SimpleQueue[OSError | None] = SimpleQueue()

    def ask() -> None:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.put(error if isinstance(error, OSError) else OSError(f"{host!r} is no name of a host: {error}"))
        else:
            answer.put(None)

    Thread(target=ask, name="rf-look-up", daemon=True).start()
    try:
        error = answer.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"the name {host!r} was not resolved in {timeout_s:g} s") from None
    if error is not None:
        raise error


def _keeps_secrets(base_url: str) -> bool:
    """Nobody on the way can read what is sent there."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    from ipaddress import ip_address  # noqa: PLC0415 - as above

    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _json(body: bytes) -> Any:
    import json  # noqa: PLC0415 - as above

    try:
        return json.loads(body)
    except ValueError as error:
        raise CommError(f"the answer is not JSON: {error}") from error


def _cause(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
