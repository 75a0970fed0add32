//! Where to write: asks the HTTP address the user gave for the write door behind it.
//!
//! The user knows one address, that of the dashboard. `GET <address>/api/v1/door` (docs/http-api.md) says on which port
//! frames are taken, and that it is Runferry at all: whatever else listens there gets neither key nor frame. It is
//! asked anew before each connect, so a server that moved or came up late is found.
//!
//! One request over one HTTP/1.1 connection. Nothing is followed, redirects included; the answer is bounded in bytes and
//! time, for what answers may be anything.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::PROTOCOL;
use crate::dial::{self, Dial};
use crate::error::{RetryCause, TransportError, chain};
use crate::hostile;

/// Most bytes of an answer, and of its headers.
const ANSWER_BYTES: usize = 64 << 10;
/// Path of the door below the user's address.
const DOOR_PATH: &str = "/api/v1/door";

/// The write door of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Name or address, IPv6 in brackets.
    pub write_host: String,
    /// Port of the gRPC service.
    pub write_port: u16,
    /// Whether it speaks TLS, and nothing else.
    pub has_tls: bool,
    /// Version of the server, for the log.
    pub version: String,
    /// Names the server's database, in hexadecimal digits as it said it.
    pub storage_epoch: String,
}

impl Door {
    /// Asks the server at `address` (`http://host:port[/prefix]`, or `https`) where it takes frames. `timeout` is for name lookup and TCP,
    /// and again for the answer.
    ///
    /// # Errors
    /// - `BadAddress`: `address` is not one, or `dial` is not as secure as it says.
    /// - `Untrusted`: the server's certificate cannot be believed, or it wants frames unencrypted.
    /// - `NotRunferry`: something else answered.
    /// - `Incompatible`: Runferry answered, of another protocol.
    /// - `Retry`: nobody answered, or a server or proxy that says it cannot now.
    pub async fn ask<D: Dial>(dial: &D, address: &str, timeout: Duration) -> Result<Self, TransportError> {
        let target = Target::parse(address)?;
        if target.is_secure != D::IS_SECURE {
            let reason =
                if target.is_secure { "https is asked over TLS only" } else { "http is asked without TLS only" };
            return Err(TransportError::BadAddress { address: address.into(), reason: reason.into() });
        }
        let connecting = dial.dial(target.lookup_name(), target.port, timeout).await;
        let stream = connecting.map_err(|error| dial::failed(address, &error))?;
        match tokio::time::timeout(timeout, target.exchange(stream)).await {
            Ok(Ok((head, body))) => read_answer(&target, &head, &body),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => {
                let reason = format!("no answer from {address} within {:.1} s", timeout.as_secs_f64());
                Err(TransportError::retry(RetryCause::TimedOut, reason))
            }
        }
    }

    /// Its host as the resolver wants it.
    pub(crate) fn lookup_name(&self) -> &str {
        unbracketed(&self.write_host)
    }

    /// Address of the gRPC service.
    pub fn write_address(&self) -> String {
        format!("{}://{}:{}", if self.has_tls { "https" } else { "http" }, self.write_host, self.write_port)
    }

    /// Whether a key may be shown there: nobody between can read it.
    pub fn keeps_secrets(&self) -> bool {
        let name = self.lookup_name();
        self.has_tls || name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The user's address, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    address: String,
    /// IPv6 in brackets.
    host: String,
    port: u16,
    /// `https`
    is_secure: bool,
    /// Without a slash at the end; empty for none.
    prefix: String,
}

impl Target {
    fn parse(address: &str) -> Result<Self, TransportError> {
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

    fn not_runferry(&self, reason: impl Into<String>) -> TransportError {
        TransportError::NotRunferry { address: self.address.clone(), reason: reason.into() }
    }

    /// One request and its whole answer.
    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(hyper::http::response::Parts, Bytes), TransportError> {
        let request = Request::get(format!("{}{DOOR_PATH}", self.prefix))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(USER_AGENT, concat!("runferry/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| TransportError::BadAddress {
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

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What the answer says. `head` and `body` may be anything.
fn read_answer(target: &Target, head: &hyper::http::response::Parts, body: &[u8]) -> Result<Door, TransportError> {
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let status = head.status;
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let after = header(RETRY_AFTER).and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let reason = format!("{} answered {status}", target.address);
        return Err(TransportError::Retry { cause: RetryCause::Busy, reason, after });
    }
    if status.is_redirection() {
        let to = header(LOCATION).map_or_else(String::new, |to| format!(" to {}", hostile::text(to)));
        return Err(target.not_runferry(format!("it redirects{to}")));
    }
    if !status.is_success() {
        return Err(target.not_runferry(format!("it answered {status} to {DOOR_PATH}")));
    }

    let answer: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| target.not_runferry(format!("its answer is not JSON ({error})")))?;
    let text = |key: &str| answer.get(key).and_then(serde_json::Value::as_str);
    if text("service") != Some("runferry") {
        return Err(target.not_runferry("its answer does not name the service"));
    }
    let version = hostile::text(text("version").unwrap_or("unknown"));
    let protocol = answer.get("protocol").and_then(serde_json::Value::as_u64);
    if protocol != Some(PROTOCOL.into()) {
        let spoken = protocol.map_or_else(|| "none".to_owned(), |protocol| protocol.to_string());
        return Err(TransportError::Incompatible {
            reason: format!("server {version} speaks protocol {spoken}, this client {PROTOCOL}"),
        });
    }
    let has_tls = answer.get("tls").and_then(serde_json::Value::as_bool).unwrap_or(false);
    if target.is_secure && !has_tls {
        // A proxy has put TLS before the read door and not before the write door: what was asked for is TLS.
        let reason = "its write door does not speak TLS".to_owned();
        return Err(TransportError::Untrusted { address: target.address.clone(), reason });
    }
    let write_port = match answer.get("write_port") {
        None | Some(serde_json::Value::Null) => target.port.checked_add(1), // the next port
        Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let write_port = write_port
        .filter(|port| *port > 0)
        .ok_or_else(|| TransportError::broken("the write port it names is not one"))?;
    let write_host = match answer.get("write_host") {
        None | Some(serde_json::Value::Null) => target.host.clone(),
        Some(host) => host
            .as_str()
            .and_then(hostile::host)
            .ok_or_else(|| TransportError::broken("the write host it names is not one"))?
            .to_owned(),
    };
    Ok(Door {
        write_host,
        write_port,
        has_tls,
        version,
        storage_epoch: hostile::text(text("storage_epoch").unwrap_or("")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Door, TransportError> {
        let target = Target::parse("http://tracker:7070").expect("an address");
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).expect("a response").into_parts();
        read_answer(&target, &head, body.as_bytes())
    }

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

    #[test]
    fn the_door_names_host_and_port_to_write_to() {
        let full = r#"{"service": "runferry", "version": "0.1.0", "protocol": 1, "write_port": 9, "write_host": "w.example",
                       "tls": false, "storage_epoch": "0a0b", "later": [1]}"#;
        let short = r#"{"service": "runferry", "version": "0.1.0", "protocol": 1, "write_host": null}"#;

        let door = answer(200, &[], full).expect("a door");
        let next_port = answer(200, &[], short).expect("a door");

        assert_eq!(door.write_address(), "http://w.example:9");
        assert_eq!((door.version.as_str(), door.storage_epoch.as_str()), ("0.1.0", "0a0b"));
        assert_eq!(next_port.write_address(), "http://tracker:7071");
    }

    #[test]
    fn what_is_not_runferry_is_told_apart() {
        for (status, headers, body) in [
            (404, vec![], "{}"),
            (401, vec![], ""),
            (302, vec![("location", "https://tracker/")], ""),
            (200, vec![], "<html>"),
            (200, vec![], "[]"),
            (200, vec![], r#"{"service": "other", "protocol": 1}"#),
        ] {
            let error = answer(status, &headers, body).expect_err("not Runferry");

            assert!(matches!(error, TransportError::NotRunferry { .. }), "{status} {body}: {error:?}");
        }
    }

    #[test]
    fn a_server_that_cannot_now_is_asked_again_when_it_says() {
        for status in [429, 500, 502, 503] {
            let error = answer(status, &[("retry-after", "7")], "").expect_err("not now");

            assert!(
                matches!(error, TransportError::Retry { after: Some(after), .. } if after == Duration::from_secs(7)),
                "{status}: {error:?}"
            );
        }
    }

    // fault: 52
    #[test]
    fn an_https_address_never_leads_to_a_write_door_without_tls() {
        let target = Target::parse("https://tracker").expect("an address");
        let (head, ()) = Response::new(()).into_parts();
        let said = |tls: &str| {
            let body = format!(r#"{{"service": "runferry", "protocol": 1{tls}}}"#);
            read_answer(&target, &head, body.as_bytes())
        };

        assert_eq!(target.port, 443);
        assert_eq!(said(r#", "tls": true"#).expect("a door").write_address(), "https://tracker:444");
        for without in ["", r#", "tls": false"#, r#", "tls": null"#] {
            let error = said(without).expect_err("a downgrade");

            assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
        }
    }

    #[test]
    fn keys_are_shown_over_tls_and_on_this_machine_only() {
        for (address, tls, may) in [
            ("http://tracker:7070", false, false),
            ("http://tracker:7070", true, true),
            ("http://10.0.0.1:7070", false, false),
            ("http://127.0.0.2:7070", false, true),
            ("http://[::1]:7070", false, true),
            ("http://localhost:7070", false, true),
            ("http://localhost.example.org:7070", false, false),
        ] {
            let target = Target::parse(address).expect("an address");
            let (head, ()) = Response::new(()).into_parts();
            let body = format!(r#"{{"service": "runferry", "protocol": 1, "tls": {tls}}}"#);

            let door = read_answer(&target, &head, body.as_bytes()).expect("a door");

            assert_eq!(door.keeps_secrets(), may, "{address} {tls}");
        }
    }

    #[test]
    fn another_protocol_is_incompatible() {
        for body in [r#"{"service": "runferry", "protocol": 2}"#, r#"{"service": "runferry"}"#] {
            let error = answer(200, &[], body).expect_err("cannot talk");

            assert!(matches!(error, TransportError::Incompatible { .. }), "{body}: {error:?}");
        }
    }

    #[test]
    fn a_door_that_leads_nowhere_is_refused() {
        for part in [r#""write_port": 0"#, r#""write_port": 70000"#, r#""write_port": "x""#, r#""write_host": "a/b""#] {
            let body = format!(r#"{{"service": "runferry", "protocol": 1, {part}}}"#);

            let error = answer(200, &[], &body).expect_err("nowhere");

            assert!(matches!(error, TransportError::Retry { cause: RetryCause::Broken, .. }), "{part}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(status in 100_u16..600, body in ".{0,200}") {
            if let Ok(door) = answer(status, &[], &body) {
                prop_assert!(door.write_port > 0);
            }
        }

        #[test]
        fn any_address_is_parsed_or_refused(address in ".{0,80}") {
            if let Ok(target) = Target::parse(&address) {
                prop_assert!(target.port > 0);
            }
        }
    }
}
