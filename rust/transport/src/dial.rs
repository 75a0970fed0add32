//! Making a connection: a name and a port become a stream of bytes. The one place that touches sockets.
//!
//! The door's question and the gRPC stream go over what [`Dial`] gives, so a simulation can put its own network under the whole
//! client. [`Tcp`] is what ships.
//!
//! # Every attempt starts from the name
//! Nothing is remembered from one attempt to the next: a server that moved, or a network that came up late, is found. All addresses
//! of a name are tried, and none may use up the time of those behind it.
//!
//! # Connections to oneself
//! Who asks a dead server's port over and over on the loopback device is one day given that very port as the local end, and TCP
//! connects it to itself. Such a client would talk to itself, and the server could not come back: its port is taken. This is
//! noticed and undone at once, without the minute that a closed connection usually keeps its port.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use runferry_descriptors::Listed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::error::{RetryCause, TransportError, chain};
use crate::{hostile, tls};

/// A way to reach servers.
pub trait Dial: Send + Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Whether its connections are encrypted and lead to whom they were made to ([`Secure`](crate::tls::Secure)). What says `https`
    /// is asked through such a one only.
    const IS_SECURE: bool = false;

    /// Connects to `port` of `host` (a name, or an address without brackets). `timeout` is for all of it, name lookup included.
    ///
    /// # Errors
    /// `TimedOut`: nobody has answered in time. Else as the system says of the last address tried.
    fn dial(&self, host: &str, port: u16, timeout: Duration) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The network of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

/// A connection of [`Tcp`]. A forked child closes its copy: with one left there the server would believe in a dead trainer for as long
/// as the child lives.
#[derive(Debug)]
pub struct TcpConnection {
    _place: Listed,
    stream: TcpStream,
}

impl Dial for Tcp {
    type Stream = TcpConnection;

    async fn dial(&self, host: &str, port: u16, timeout: Duration) -> io::Result<TcpConnection> {
        let deadline = Instant::now() + timeout;
        let looking_up = timeout_at(deadline, lookup_host((host, port))).await;
        let addresses =
            looking_up.map_err(|_elapsed| io::Error::new(ErrorKind::TimedOut, "the name is not resolved"))?;
        let stream = first_that_answers(&addresses?.collect::<Vec<_>>(), deadline).await?;
        Ok(TcpConnection { _place: Listed::new(&stream), stream })
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Tries one address after the other; each gets an equal share of the time that is left.
async fn first_that_answers(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
        let connected = match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(connected) => connected.and_then(not_to_itself),
            Err(_elapsed) => Err(io::Error::new(ErrorKind::TimedOut, format!("{address} does not answer"))),
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Refuses a connection whose two ends are one, and frees its port.
fn not_to_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? != stream.peer_addr()? {
        return Ok(stream);
    }
    stream.set_zero_linger()?;
    Err(io::Error::new(ErrorKind::ConnectionRefused, "nobody listens there: the connection led back to itself"))
}

/// What a failed [`Dial::dial`] to `whom` means.
pub(crate) fn failed(whom: &str, error: &io::Error) -> TransportError {
    if let Some(error) = tls::failed(whom, error) {
        return error;
    }
    let cause = if error.kind() == ErrorKind::TimedOut { RetryCause::TimedOut } else { RetryCause::Unreachable };
    TransportError::retry(cause, format!("{whom}: {}", hostile::text(&chain(error))))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn deadline() -> Instant {
        Instant::now() + PATIENCE
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// An address where nobody listens.
    async fn closed() -> SocketAddr {
        TcpListener::bind(loopback()).await.and_then(|listener| listener.local_addr()).expect("a port")
    }

    /// An address whose queue of connections is full, so that it does not answer; all of it has to be kept.
    async fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(loopback()).expect("bound");
        let listener = socket.listen(1).expect("listening");
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            queued.push(stream);
        }
        (address, listener, queued)
    }

    #[tokio::test]
    async fn a_connection_has_no_delay_and_is_to_the_address_that_answers() {
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        let open = listener.local_addr().expect("an address");

        let stream = first_that_answers(&[closed().await, open], deadline()).await.expect("the second answers");

        assert_eq!(stream.peer_addr().expect("connected"), open);
        assert!(stream.nodelay().expect("a socket"));
    }

    #[tokio::test]
    async fn an_address_that_never_answers_leaves_time_for_the_next() {
        let (mute, _listener, _queued) = silent().await;
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        let open = listener.local_addr().expect("an address");
        let deadline = Instant::now() + Duration::from_secs(2);

        let stream = first_that_answers(&[mute, open], deadline).await.expect("the second answers");

        assert_eq!(stream.peer_addr().expect("connected"), open);
    }

    #[tokio::test]
    async fn silence_everywhere_is_told_as_such() {
        let (mute, _listener, _queued) = silent().await;

        let silence = first_that_answers(&[mute], Instant::now() + Duration::from_millis(100)).await;
        let refusal = first_that_answers(&[mute, closed().await], Instant::now() + Duration::from_millis(200)).await;
        let nobody = first_that_answers(&[], deadline()).await;

        assert_eq!(silence.expect_err("nobody answers").kind(), ErrorKind::TimedOut);
        assert_eq!(refusal.expect_err("nobody answers").kind(), ErrorKind::ConnectionRefused);
        assert_eq!(nobody.expect_err("no address").kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_refused_and_leaves_the_port_to_the_server() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(loopback()).expect("bound");
        let own = socket.local_addr().expect("an address");
        let stream = socket.connect(own).await.expect("TCP connects a socket to itself");

        let refused = not_to_itself(stream).expect_err("refused");

        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        TcpSocket::new_v4().and_then(|socket| socket.bind(own)).expect("the server may come back at once");
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_an_unknown_one_fails() {
        let listener = TcpListener::bind(loopback()).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();

        Tcp.dial("localhost", port, PATIENCE).await.expect("connected");
        Tcp.dial("nowhere.invalid", port, PATIENCE).await.expect_err("no such name");
    }
}
