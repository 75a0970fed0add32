"""The server's TLS certificate: read, checked, and read again when it was renewed.

Both doors use one pair of files. Renewal replaces the files; the new pair is used for every handshake after the next look, which is
every few seconds and on SIGHUP. Connections that are open stay open.

# Failure
A new pair that cannot be used (half replaced, wrong key) is told in the log and not used; the old one stays in force.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class CertificateError(Exception):
    """The files cannot be used; the message says why."""


class Certificates:
    """A pair of files and what they hold now."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Read them.

        Raises:
            CertificateError: They are missing, unreadable, or do not belong together.
        """
        self._cert_file = cert_file
        self._key_file = key_file
        self._seen = self._look()
        self._pair = self._read()
        self.context = _context()
        """For HTTP; later handshakes see what `renew` loads into it."""
        self.context.load_cert_chain(cert_file, key_file)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For gRPC: asks for the pair at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(), self._grpc_configuration, require_client_authentication=False
        )

    def renew(self) -> None:
        """Use the files as they are now, if they have changed and can be used. Blocks for two small reads."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._pair = self._read()
            self.context.load_cert_chain(self._cert_file, self._key_file)
        except (CertificateError, OSError) as error:
            logger.error("the renewed certificate is not used, the one before stays: %s", error)  # noqa: TRY400 - expected, its place is known
        else:
            logger.warning("the certificate in %s was renewed", self._cert_file)

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        chain, key = self._pair
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    def _look(self) -> tuple[object, ...]:
        """What tells replaced files from the ones before."""
        return (_identity(self._cert_file), _identity(self._key_file))

    def _read(self) -> tuple[bytes, bytes]:
        try:
            pair = (self._cert_file.read_bytes(), self._key_file.read_bytes())
            _context().load_cert_chain(self._cert_file, self._key_file)
        except ssl.SSLError as error:
            raise CertificateError(f"{self._cert_file} and {self._key_file} are not a certificate and its key: {error}") from error
        except OSError as error:
            raise CertificateError(f"cannot read {error.filename or self._cert_file}: {error.strerror}") from error
        return pair


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Of what lies at the path now; None: nothing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_size, state.st_ino)
