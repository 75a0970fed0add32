//! A network that exists only in memory: hosts, connections, and everything that goes wrong with them.
//!
//! Bytes take time, come in order, and stop where a link is cut: what was written stays under way until the link is healed, as
//! TCP's own resending makes it look. A cut swallows the words "I am gone" as well, so a peer may talk to nobody for long.
//! Connections are cut at a byte, reset at once, or held back while newer ones overtake them.
//!
//! # Time
//! There is none here: tokio's clock, paused by the simulation, jumps to the next arrival.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use runferry_transport::Dial;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Sleep};

/// A host, by number.
pub type Host = u8;
/// The only server.
pub const SERVER: Host = 0;
/// What one direction of a connection keeps until it is read.
const BUFFER_BYTES: usize = 256 << 10;

/// Locks; a panic elsewhere is a failed seed already.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
enum End {
    #[default]
    Open,
    /// The process or machine that held it is gone.
    Gone,
}

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>, usize),
    Fin,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    items: VecDeque<(Instant, Item)>,
    buffered: usize,
    delivered: u64,
    /// The connection breaks when so many bytes have been delivered.
    breaks_at: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Connection {
    hosts: [Host; 2],
    /// What `hosts[n]` says.
    pipes: [Pipe; 2],
    ends: [End; 2],
    is_reset: [bool; 2],
    /// Nothing of it arrives: newer connections overtake it.
    is_held: bool,
    latency: Duration,
}

impl Connection {
    fn push(&mut self, side: usize, item: Item, delay: Duration) {
        let pipe = &mut self.pipes[side];
        let soonest = Instant::now() + self.latency + delay;
        let at = pipe.items.back().map_or(soonest, |(at, _)| soonest.max(*at));
        pipe.items.push_back((at, item));
        wake(&mut pipe.reader);
    }

    fn reset(&mut self) {
        self.is_reset = [true; 2];
        self.wake();
    }

    fn wake(&mut self) {
        for pipe in &mut self.pipes {
            wake(&mut pipe.reader);
            wake(&mut pipe.writer);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    listeners: BTreeMap<u16, UnboundedSender<Socket>>,
    cut: BTreeSet<(Host, Host)>,
    is_server_off: bool,
    connections: Vec<Weak<Mutex<Connection>>>,
    latency: Duration,
    /// Of the connections made, this share breaks at some byte.
    breaking_percent: u32,
}

/// The network.
#[derive(Debug, Clone)]
pub struct Net(Arc<Mutex<State>>);

impl Net {
    /// A network that works.
    pub fn new(random: fastrand::Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            listeners: BTreeMap::new(),
            cut: BTreeSet::new(),
            is_server_off: false,
            connections: Vec::new(),
            latency: Duration::from_millis(1),
            breaking_percent: 0,
        })))
    }

    /// The server listens at a port until the receiver is dropped.
    pub fn listen(&self, port: u16) -> UnboundedReceiver<Socket> {
        let (accepted, sockets) = unbounded_channel();
        lock(&self.0).listeners.insert(port, accepted);
        sockets
    }

    /// The server's machine is without power: nobody answers, nobody refuses.
    pub fn switch_server(&self, is_off: bool) {
        lock(&self.0).is_server_off = is_off;
    }

    /// Bytes from one host to the other stop.
    pub fn cut(&self, from: Host, to: Host) {
        lock(&self.0).cut.insert((from, to));
    }

    /// Everything arrives again; connections are made as quickly as ever.
    pub fn heal(&self) {
        let mut state = lock(&self.0);
        state.cut.clear();
        state.breaking_percent = 0;
        state.latency = Duration::from_millis(1);
        drop(state);
        self.each(|connection| {
            connection.is_held = false;
            connection.pipes.iter_mut().for_each(|pipe| pipe.breaks_at = None);
            connection.wake();
        });
    }

    /// How long bytes take on connections to come.
    pub fn set_latency(&self, latency: Duration) {
        lock(&self.0).latency = latency;
    }

    /// So many of a hundred connections to come break at some byte within their first 64 KiB.
    pub fn set_breaking(&self, percent: u32) {
        lock(&self.0).breaking_percent = percent;
    }

    /// Both ends of all connections of a host learn that they are broken.
    pub fn reset(&self, host: Host) {
        self.each(|connection| {
            if connection.hosts.contains(&host) {
                connection.reset();
            }
        });
    }

    /// Connections of a host that exist now come to a standstill, without an end.
    pub fn hold(&self, host: Host) {
        self.each(|connection| connection.is_held |= connection.hosts.contains(&host));
    }

    /// What was held back arrives, late.
    pub fn release(&self) {
        self.each(|connection| {
            connection.is_held = false;
            connection.wake();
        });
    }

    /// The process on a host is gone, and its system closes what it held; `silently`: the whole machine is, and nothing is said.
    pub fn crash(&self, host: Host, silently: bool) {
        self.each(|connection| {
            let Some(side) = connection.hosts.iter().position(|at| *at == host) else { return };
            connection.is_reset[side] = true;
            connection.ends[side] = End::Gone;
            if !silently {
                connection.push(side, Item::Reset, Duration::ZERO);
            }
            connection.wake();
        });
    }

    fn each(&self, change: impl Fn(&mut Connection)) {
        let connections: Vec<_> = {
            let mut state = lock(&self.0);
            state.connections.retain(|connection| connection.strong_count() > 0);
            state.connections.iter().filter_map(Weak::upgrade).collect()
        };
        connections.iter().for_each(|connection| change(&mut lock(connection)));
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        lock(&self.0).cut.contains(&(from, to))
    }

    fn connect(&self, from: Host, port: u16) -> io::Result<Socket> {
        let mut state = lock(&self.0);
        let breaks_at: [Option<u64>; 2] = std::array::from_fn(|_| {
            let breaks = state.random.u32(..100) < state.breaking_percent;
            breaks.then(|| state.random.u64(..64 << 10) >> state.random.u32(..12))
        });
        let most_us = state.latency.as_micros() as u64;
        let jitter = state.random.u64(..=most_us);
        let mut pipes = <[Pipe; 2]>::default();
        pipes.iter_mut().zip(breaks_at).for_each(|(pipe, breaks_at)| pipe.breaks_at = breaks_at);
        let connection = Arc::new(Mutex::new(Connection {
            hosts: [from, SERVER],
            pipes,
            ends: <[End; 2]>::default(),
            is_reset: [false; 2],
            is_held: false,
            latency: state.latency + Duration::from_micros(jitter),
        }));
        let refused = || io::Error::from(ErrorKind::ConnectionRefused);
        let listener = state.listeners.get(&port).ok_or_else(refused)?;
        let socket = |side| Socket { connection: Arc::clone(&connection), side, net: self.clone(), sleep: None };
        listener.send(socket(1)).map_err(|_nobody| refused())?;
        state.connections.push(Arc::downgrade(&connection));
        Ok(socket(0))
    }
}

/// A host's way into the network.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The network.
    pub net: Net,
    /// Who calls.
    pub host: Host,
}

impl Dial for Caller {
    type Stream = Socket;

    async fn dial(&self, _: &str, port: u16, timeout: Duration) -> io::Result<Socket> {
        let started = Instant::now();
        loop {
            let (is_reached, latency) = {
                let state = lock(&self.net.0);
                let ways = [(self.host, SERVER), (SERVER, self.host)];
                (!state.is_server_off && !ways.iter().any(|way| state.cut.contains(way)), state.latency)
            };
            if is_reached {
                tokio::time::sleep(latency * 2).await;
                return self.net.connect(self.host, port);
            }
            if started.elapsed() >= timeout {
                return Err(ErrorKind::TimedOut.into());
            }
            // Connecting is tried again and again, as TCP does.
            tokio::time::sleep(Duration::from_secs(1).min(timeout)).await;
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Socket {
    connection: Arc<Mutex<Connection>>,
    side: usize,
    net: Net,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut guard = lock(&this.connection);
            let connection = &mut *guard;
            if connection.is_reset[this.side] {
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
            let (from, to) = (connection.hosts[1 - this.side], connection.hosts[this.side]);
            let is_stopped = connection.is_held || this.net.is_cut(from, to);
            let pipe = &mut connection.pipes[1 - this.side];
            pipe.reader = Some(context.waker().clone());
            let Some((at, item)) = pipe.items.front_mut().filter(|_| !is_stopped) else { return Poll::Pending };
            if *at > Instant::now() {
                let mut sleep = Box::pin(tokio::time::sleep_until(*at));
                drop(guard);
                if sleep.as_mut().poll(context).is_ready() {
                    continue;
                }
                this.sleep = Some(sleep);
                return Poll::Pending;
            }
            match item {
                Item::Fin => return Poll::Ready(Ok(())),
                Item::Reset => {
                    connection.is_reset[this.side] = true;
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
                Item::Bytes(bytes, start) => {
                    let left = pipe.breaks_at.map_or(u64::MAX, |at| at.saturating_sub(pipe.delivered));
                    if left == 0 {
                        connection.reset();
                        continue;
                    }
                    let count = (bytes.len() - *start).min(buffer.remaining()).min(left as usize);
                    buffer.put_slice(&bytes[*start..*start + count]);
                    *start += count;
                    if *start == bytes.len() {
                        pipe.items.pop_front();
                    }
                    pipe.buffered -= count;
                    pipe.delivered += count as u64;
                    wake(&mut pipe.writer);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut connection = lock(&self.connection);
        if connection.is_reset[self.side] {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let is_told = matches!(connection.pipes[1 - self.side].items.back(), Some((_, Item::Reset)));
        if matches!(connection.ends[1 - self.side], End::Gone) && !is_told {
            // The system of the peer knows no such connection any more, and says so, if the word gets through. Once: the word wakes the
            // writer, who would ask again before any time has passed.
            connection.push(1 - self.side, Item::Reset, Duration::ZERO);
        }
        let pipe = &mut connection.pipes[self.side];
        let room = BUFFER_BYTES.saturating_sub(pipe.buffered);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        pipe.buffered += count;
        connection.push(self.side, Item::Bytes(bytes[..count].to_vec(), 0), Duration::ZERO);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.connection).push(self.side, Item::Fin, Duration::ZERO);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut connection = lock(&self.connection);
        if matches!(connection.ends[self.side], End::Open) {
            connection.ends[self.side] = End::Gone;
            connection.push(self.side, Item::Fin, Duration::ZERO);
        }
    }
}
