//! One small question to a server's HTTP side, and its whole answer.
//!
//! One request over one HTTP/1.1 connection. Nothing is followed, redirects included; the answer is bounded in bytes and
//! time, for what answers may be anything.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use hyper::http::response::Parts;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dial::{self, Dial};
use crate::error::{RetryCause, TransportError, chain};
use crate::hostile;

/// Most bytes of an answer, and of its headers.
const ANSWER_BYTES: usize = 64 << 10;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Its name, as the standard has it.
    pub reason: &'static str,
    /// All of the body.
    pub body: Bytes,
}

/// Asks the server at `address` (`http://host:port[/prefix]`, or `https`) for `path` below it, showing it `api_key`. `timeout` is for
/// name lookup and TCP, and again for the answer.
///
/// # Errors
/// As [`Door::ask`](crate::door::Door::ask), but for what an answer says: any status is one.
pub async fn get<D: Dial>(
    dial: &D,
    address: &str,
    path: &str,
    api_key: Option<&str>,
    timeout: Duration,
) -> Result<Reply, TransportError> {
    let (_, head, body) = exchange(dial, address, path, api_key, timeout).await?;
    let reason = head.status.canonical_reason().unwrap_or("");
    Ok(Reply { status: head.status.as_u16(), reason, body })
}

/// [`get`], with whom it asked and the head of the answer.
pub(crate) async fn exchange<D: Dial>(
    dial: &D,
    address: &str,
    path: &str,
    api_key: Option<&str>,
    timeout: Duration,
) -> Result<(Target, Parts, Bytes), TransportError> {
    let target = Target::parse(address)?;
    if target.is_secure != D::IS_SECURE {
        let reason = if target.is_secure { "https is asked over TLS only" } else { "http is asked without TLS only" };
        return Err(TransportError::BadAddress { address: address.into(), reason: reason.into() });
    }
    let connecting = dial.dial(target.lookup_name(), target.port, timeout).await;
    let stream = connecting.map_err(|error| dial::failed(address, &error))?;
    match tokio::time::timeout(timeout, target.request(stream, path, api_key)).await {
        Ok(answered) => answered.map(|(head, body)| (target, head, body)),
        Err(_elapsed) => {
            let reason = format!("no answer from {address} within {:.1} s", timeout.as_secs_f64());
            Err(TransportError::retry(RetryCause::TimedOut, reason))
        }
    }
}

/// The user's address, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: String,
    /// IPv6 in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `https`
    pub(crate) is_secure: bool,
    /// Without a slash at the end; empty for none.
    prefix: String,
}

impl Target {
    pub(crate) fn parse(address: &str) -> Result<Self, TransportError> {
        let bad = |reason: &str| TransportError::BadAddress { address: address.into(), reason: reason.into() };
        let uri: Uri = address.trim().parse().map_err(|error| bad(&format!("{error}")))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(bad(&format!("it must begin with http:// or https://, not {other}://"))),
            None => return Err(bad("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it must not hold a user name; keys are given apart from the address"));
        }
        if uri.query().is_some() || address.contains('#') {
            return Err(bad("it must end with the path"));
        }
        let host = hostile::host(authority.host()).ok_or_else(|| bad("the host is neither a name nor an address"))?;
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if !has_port => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            _ => return Err(bad("the port must be 1 to 65535")),
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { address: address.into(), host: host.into(), port, is_secure, prefix })
    }

    /// The host as the resolver wants it.
    fn lookup_name(&self) -> &str {
        unbracketed(&self.host)
    }

    pub(crate) fn not_runferry(&self, reason: impl Into<String>) -> TransportError {
        TransportError::NotRunferry { address: self.address.clone(), reason: reason.into() }
    }

    /// One request and its whole answer.
    async fn request(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        path: &str,
        api_key: Option<&str>,
    ) -> Result<(Parts, Bytes), TransportError> {
        let mut request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(USER_AGENT, concat!("runferry/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if let Some(key) = api_key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| TransportError::BadAddress {
            address: self.address.clone(),
            reason: hostile::text(&chain(&error)),
        })?;

        let handshake = hyper::client::conn::http1::Builder::new()
            .max_buf_size(ANSWER_BYTES)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.failed(&error))?;
        let answering = async {
            let (head, body) =
                sender.send_request(request).await.map_err(|error| self.failed(&error)).map(Response::into_parts)?;
            let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| {
                match error.downcast_ref::<hyper::Error>() {
                    Some(error) => self.failed(error),
                    None => self.not_runferry(format!("its answer is longer than {ANSWER_BYTES} bytes")),
                }
            })?;
            Ok((head, body.to_bytes()))
        };
        tokio::pin!(answering);
        tokio::select! {
            // Polled first: the end of the connection must not hide an answer that is complete.
            biased;
            answer = &mut answering => answer,
            _ended = connection => answering.await, // has its reason from the connection
        }
    }

    /// What an error of the HTTP library says about who is there.
    fn failed(&self, error: &hyper::Error) -> TransportError {
        let reason = hostile::text(&chain(error));
        if error.is_parse() || error.is_parse_status() {
            return self.not_runferry(format!("it does not speak HTTP ({reason})"));
        }
        // A port that closes without a word may be a server on its way up or down.
        TransportError::retry(RetryCause::Lost, format!("{}: {reason}", self.address))
    }
}

pub(crate) fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_has_host_port_and_prefix() {
        for (address, host, port, prefix) in [
            ("http://localhost:7070", "localhost", 7070, ""),
            ("http://localhost:7070/", "localhost", 7070, ""),
            (" http://tracker.example.org ", "tracker.example.org", 80, ""),
            ("http://[::1]:7070/team/a/", "[::1]", 7070, "/team/a"),
        ] {
            let target = Target::parse(address).expect(address);

            assert_eq!((target.host.as_str(), target.port, target.prefix.as_str()), (host, port, prefix));
        }
        assert_eq!(Target::parse("http://[::1]:7070").expect("an address").lookup_name(), "::1");
    }

    #[test]
    fn a_bad_address_says_what_is_wrong_with_it() {
        for (address, words) in [
            ("ftp://tracker", "must begin with http://"),
            ("tracker:7070", "must begin with http://"),
            ("tracker", "must begin with http://"),
            ("", "empty"),
            ("http://", ""),
            ("http://key@tracker:7070", "user name"),
            ("http://tracker:0", "port"),
            ("http://tracker:70700", "port"),
            ("http://tracker:7070/?a=b", "path"),
            ("http://tracker:7070/#top", "path"),
            ("http://tra cker:7070", ""),
        ] {
            let Err(TransportError::BadAddress { reason, .. }) = Target::parse(address) else {
                panic!("{address:?} was taken")
            };

            assert!(reason.contains(words), "{address:?}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_parsed_or_refused(address in ".{0,80}") {
            if let Ok(target) = Target::parse(&address) {
                prop_assert!(target.port > 0);
            }
        }
    }
}
