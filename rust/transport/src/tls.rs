//! TLS over whatever [`Dial`] gives: who the server is, or no connection.
//!
//! [`Trust`] is made from certificates that the caller has read (this crate knows no disk), [`Secure`] is a [`Dial`] that ends its
//! handshake before anybody above sees a stream. An address that says `https` is only ever asked through it, so there is no way
//! down to plain text: no flag, no retry, no answer of a server.
//!
//! # Failure
//! A certificate that cannot be believed is [`TransportError::Untrusted`], with the reason in words. Something that answers in
//! another tongue than TLS is `NotRunferry`. Everything else is a connection that failed.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dial::Dial;
use crate::error::TransportError;
use crate::hostile;

/// The authorities whose word is taken.
#[derive(Debug, Clone)]
pub struct Trust(Arc<RootCertStore>);

impl Trust {
    /// Reads PEM text; what is no certificate in it is skipped, as files of authorities hold all sorts of things.
    ///
    /// # Errors
    /// In words: there is no certificate in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        if roots.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// What is spoken over a secured connection; a server that speaks several things has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    /// HTTP/1.1, for the door.
    Http,
    /// HTTP/2, for the stream.
    Grpc,
}

/// Connections that are encrypted and lead to whom they were made to.
#[derive(Debug)]
pub struct Secure<'a, D> {
    inner: &'a D,
    config: Arc<ClientConfig>,
}

impl<'a, D: Dial> Secure<'a, D> {
    /// Secures what `inner` dials.
    ///
    /// # Errors
    /// `Untrusted`: the TLS library cannot be set up; it never happens with the ciphers it is built with.
    pub fn new(inner: &'a D, trust: &Trust, tongue: Tongue) -> Result<Self, TransportError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TransportError::Untrusted { address: String::new(), reason: error.to_string() })?
            .with_root_certificates(Arc::clone(&trust.0))
            .with_no_client_auth();
        config.alpn_protocols = vec![match tongue {
            Tongue::Http => b"http/1.1".to_vec(),
            Tongue::Grpc => b"h2".to_vec(),
        }];
        Ok(Self { inner, config: Arc::new(config) })
    }
}

impl<D: Dial> Dial for Secure<'_, D> {
    type Stream = TlsStream<D::Stream>;

    const IS_SECURE: bool = true;

    async fn dial(&self, host: &str, port: u16, timeout: Duration) -> io::Result<Self::Stream> {
        let deadline = Instant::now() + timeout;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let stream = self.inner.dial(host, port, timeout).await?;
        let shaking = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        let shaken = timeout_at(deadline, shaking).await;
        shaken.map_err(|_elapsed| io::Error::new(ErrorKind::TimedOut, "the TLS handshake does not end"))?
    }
}

/// What a failed handshake with `address` means; `None`: it was not TLS that failed.
pub(crate) fn failed(address: &str, error: &io::Error) -> Option<TransportError> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let address = address.to_owned();
    Some(match error {
        rustls::Error::InvalidCertificate(cause) => TransportError::Untrusted { address, reason: in_words(cause) },
        rustls::Error::InvalidMessage(_) => {
            TransportError::NotRunferry { address, reason: "it does not speak TLS".to_owned() }
        }
        other => TransportError::broken(hostile::text(&format!("TLS: {other}"))),
    })
}

fn in_words(cause: &CertificateError) -> String {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is this machine's clock right?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "nobody trusted here has signed it (RUNFERRY_CA_FILE names a file of authorities)".to_owned()
        }
        other => hostile::text(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::dial::{self, Tcp};

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_file_without_certificates_is_no_trust() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Trust::from_pem(pem.as_bytes()).is_err(), "{pem:?}");
        }
    }

    #[test]
    fn each_doubt_about_a_certificate_is_told_in_words() {
        for (cause, words) in [
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::NotValidForName, "another host"),
            (CertificateError::UnknownIssuer, "RUNFERRY_CA_FILE"),
            (CertificateError::Revoked, "evoked"),
        ] {
            let error = io::Error::other(rustls::Error::InvalidCertificate(cause));

            let Some(TransportError::Untrusted { reason, .. }) = failed("https://tracker", &error) else {
                panic!("{words}: not Untrusted")
            };

            assert!(reason.contains(words), "{reason}");
        }
        assert!(failed("https://tracker", &io::Error::from(ErrorKind::ConnectionReset)).is_none());
    }

    // fault: 52
    #[tokio::test]
    async fn a_server_without_tls_is_never_spoken_to_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut heard = vec![0; 5];
            socket.read_exact(&mut heard).await.expect("its first words");
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("an answer");
            heard
        });
        let trust = Trust(Arc::new(RootCertStore::empty()));
        let secure = Secure::new(&Tcp, &trust, Tongue::Http).expect("TLS");

        let error = secure.dial("127.0.0.1", port, PATIENCE).await.expect_err("no TLS there");

        assert!(matches!(dial::failed("https://it", &error), TransportError::NotRunferry { .. }), "{error:?}");
        assert_eq!(heard.await.expect("a server").first(), Some(&0x16), "a TLS handshake begins with 22");
    }
}
