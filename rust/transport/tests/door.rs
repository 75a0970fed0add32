//! Asking for the write door, over real sockets: what answers may be anything.

use std::time::Duration;

use runferry_transport::{Door, RetryCause, Tcp, TransportError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);
const ANSWER: &str = r#"{"service": "runferry", "version": "0.1.0", "protocol": 1, "write_port": 7071, "write_host": null, "tls": false,
                         "storage_epoch": "0a0b"}"#;

/// What the server does once it has read the request.
#[derive(Clone)]
enum Script {
    Say(Vec<u8>),
    Hang(Vec<u8>),
}

/// Serves every connection by the script; gives its port, and the requests it got.
async fn serve(script: Script) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heard, requests) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            heard.send(String::from_utf8_lossy(&request).into_owned()).await.expect("the test listens");
            match &script {
                Script::Say(answer) => {
                    socket.write_all(answer).await.ok(); // the client may have heard enough
                    socket.shutdown().await.ok();
                }
                Script::Hang(answer) => {
                    socket.write_all(answer).await.ok();
                    socket.read_to_end(&mut request).await.ok();
                }
            }
        }
    });
    (port, requests)
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

async fn ask(script: Script, timeout: Duration) -> Result<Door, TransportError> {
    let (port, _requests) = serve(script).await;
    Door::ask(&Tcp, &format!("http://127.0.0.1:{port}"), timeout).await
}

fn retry_cause(result: &Result<Door, TransportError>) -> Option<RetryCause> {
    match result {
        Err(TransportError::Retry { cause, .. }) => Some(*cause),
        _ => None,
    }
}

#[tokio::test]
async fn the_door_is_asked_below_the_prefix_and_without_a_key() {
    let (port, mut requests) = serve(Script::Say(http(ANSWER))).await;

    let door = Door::ask(&Tcp, &format!("http://localhost:{port}/team/"), PATIENCE).await.expect("a door");

    assert_eq!(door.write_address(), "http://localhost:7071");
    assert_eq!((door.version.as_str(), door.storage_epoch.as_str()), ("0.1.0", "0a0b"));
    let request = requests.recv().await.expect("a request").to_lowercase();
    assert!(request.starts_with("get /team/api/v1/door http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: localhost:{port}\r\n")), "{request}");
    assert!(!request.contains("authorization"));
}

#[tokio::test]
async fn an_answer_in_pieces_or_without_length_or_on_a_kept_connection_is_read() {
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{ANSWER}\r\n0\r\n\r\n", ANSWER.len());
    let until_close = format!("HTTP/1.0 200 OK\r\n\r\n{ANSWER}");
    for script in [
        Script::Say(chunked.clone().into()),
        Script::Say(until_close.into()),
        Script::Hang(http(ANSWER)),
        Script::Hang(chunked.into()),
    ] {
        ask(script, PATIENCE).await.expect("a door");
    }
}

#[tokio::test]
async fn whatever_is_not_runferry_is_told_apart() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(1 << 20));
    let long_headers = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for answer in [
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        vec![0xff; 1_000],
        http("<html></html>"),
        http("{}"),
        endless.into(),
        long_headers.into(),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 301 Moved\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n".to_vec(),
    ] {
        let result = ask(Script::Say(answer), PATIENCE).await;

        assert!(matches!(result, Err(TransportError::NotRunferry { .. })), "{result:?}");
    }
}

// fault: 47
#[tokio::test]
async fn silence_is_given_up_before_and_within_the_answer() {
    let half = http(ANSWER).into_iter().take(60).collect();
    for script in [Script::Hang(Vec::new()), Script::Hang(half)] {
        let result = ask(script, SHORT).await;

        assert_eq!(retry_cause(&result), Some(RetryCause::TimedOut), "{result:?}");
    }
}

// fault: 44
#[tokio::test]
async fn an_answer_cut_at_any_byte_is_tried_again() {
    let answer = http(r#"{"service": "runferry", "protocol": 1}"#);
    for kept_bytes in 0..answer.len() {
        let result = ask(Script::Say(answer.iter().copied().take(kept_bytes).collect()), PATIENCE).await;

        assert_eq!(retry_cause(&result), Some(RetryCause::Lost), "after {kept_bytes} bytes: {result:?}");
    }
}

// fault: 48
#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_unreachable() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);

    let closed = Door::ask(&Tcp, &format!("http://127.0.0.1:{port}"), PATIENCE).await;
    let unknown = Door::ask(&Tcp, "http://nowhere.invalid:7070", PATIENCE).await;

    assert_eq!(retry_cause(&closed), Some(RetryCause::Unreachable), "{closed:?}");
    // A resolver that is itself out of reach may take its time instead of answering.
    let cause = retry_cause(&unknown);
    assert!(matches!(cause, Some(RetryCause::Unreachable | RetryCause::TimedOut)), "{unknown:?}");
}

// fault: 52
#[tokio::test]
async fn https_is_not_asked_without_tls() {
    let error = Door::ask(&Tcp, "https://127.0.0.1:7070", PATIENCE).await.expect_err("no TLS");

    assert!(error.to_string().contains("https is asked over TLS only"), "{error}");
    assert!(!error.is_retryable());
}
