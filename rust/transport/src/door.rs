//! Where to write: asks the HTTP address the user gave for the write door behind it.
//!
//! The user knows one address, that of the dashboard. `GET <address>/api/v1/door` (docs/http-api.md) says on which port
//! frames are taken, and that it is Runferry at all: whatever else listens there gets neither key nor frame. It is
//! asked anew before each connect, so a server that moved or came up late is found.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{LOCATION, RETRY_AFTER};

use crate::connection::PROTOCOL;
use crate::dial::Dial;
use crate::error::{RetryCause, TransportError};
use crate::hostile;
use crate::question::{self, Target, unbracketed};

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
        let (target, head, body) = question::exchange(dial, address, DOOR_PATH, None, timeout).await?;
        read_answer(&target, &head, &body)
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
    use hyper::Response;
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
    }
}
