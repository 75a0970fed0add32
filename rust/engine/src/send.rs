//! Thread `rf-send`: frames to the server, as the session allows, again and again until they are durably acked.
//!
//! # Who owns what
//! The thread owns the connection, the session and the backoff; it reads frames from a [`Source`] and tells [`Shared`] what is acked.
//!
//! # Waiting
//! For the server's next word, for new frames, for the session's next deadline, or for the end.
//!
//! # Shutdown
//! When the source is over and all of it is durably acked; or at once when told to stop. What is not acked stays in the journal.
//!
//! # Failure
//! No failure ends the thread but one that only the user can mend (address, refused run): state and reason are in `status()`.

mod gaps;
mod life;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use runferry_transport::answer::Event;
use runferry_transport::connection::{Connection, OpenRequest, Outgoing, Timeouts};
use runferry_transport::door::Door;
use runferry_transport::proto::Beat;
use runferry_transport::retry::{Backoff, Pause};
use runferry_transport::session::{Due, FrameSize, GapCause, Reaction, Resume, Session, Verdict};
use runferry_transport::tls::{Secure, Tongue};
use runferry_transport::{Dial, RetryCause, TransportError};

use crate::clock::Clock;
use crate::credentials::{Access, Credentials, Hidden};
use crate::outward::Outward;
use crate::patience::{Attempt, Patience};
use crate::shared::{Connection as State, Counters, ONLINE_LINGER, Shared};
use crate::source::Source;
use gaps::Gaps;
use life::{is_of_another_life, succeed};

/// Frames handed to the connection at once.
const ROUND_BYTES: usize = 2 << 20;
/// How long the server gets to end the stream after Bye.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// For whom a sender speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behalf {
    /// Itself: it is the writer's.
    Own,
    /// A writer that lives: a local server follows its journal.
    Living,
    /// One that has ended, or of which nothing is known.
    Absent,
    /// One that died without FINISH. The server is told when all it left is there.
    Dead,
}

/// What a sender is made from.
#[derive(Debug)]
pub(crate) struct Sender<D> {
    pub(crate) dial: D,
    pub(crate) clock: Clock,
    pub(crate) base_url: String,
    pub(crate) access: Access,
    pub(crate) client: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) behalf: Behalf,
    pub(crate) timeouts: Timeouts,
}

/// How a sender ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All there is is durably on the server.
    Done,
    /// The server says that it has more of this writer than there is here, and has acked none of it.
    Claimed,
    /// It was told to.
    Stopped,
    /// Only the user can help; or the patience is at its end.
    GaveUp(TransportError),
}

/// How one connection ended, without an error.
enum Parted {
    Done,
    Claimed,
    Stopped,
    Reconnect,
    /// What follows goes out as a new writer's.
    Succeeded,
}

/// The thread's body.
pub(crate) fn run(sender: &Sender<impl Dial>, source: impl Source) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return sender.shared.set_error(format!("no network runtime: {error}")),
    };
    runtime.block_on(serve(sender, source, None, fastrand::Rng::new()));
    // Not by dropping it: that waits for a name lookup under way, which can take half a minute.
    runtime.shutdown_background();
}

/// Sends until the end. `patience`: when to give up a server that takes nothing; `None`: never.
/// `random` spreads waits.
pub(crate) async fn serve(
    sender: &Sender<impl Dial>,
    source: impl Source,
    mut patience: Option<Patience>,
    mut random: fastrand::Rng,
) -> Ended {
    let shared = &*sender.shared;
    let mut source = match Outward::new(source) {
        Ok(source) => source,
        Err(error) => {
            shared.set_error(error.to_string());
            return Ended::GaveUp(error);
        }
    };
    shared.acked(source.first_seq(), source.first_seq());
    let mut session = Session::new(source.outward(shared.state().durable_next_seq), random.fork());
    let mut backoff = Backoff::new();
    let mut credentials = Credentials::new(&sender.access, &sender.base_url);
    let mut gaps = Gaps::default();
    loop {
        let (began_at, durable_before) = ((sender.clock.mono)(), session.durable_next_seq());
        let mut has_answered = false;
        let parted = tokio::select! {
            biased;
            () = stopped(shared) => Ok(Parted::Stopped),
            parted = connect(sender, &mut source, &mut session, &mut backoff, &mut credentials, &mut gaps, &mut has_answered) => parted,
        };
        let mut refusal = None;
        let now = (sender.clock.mono)();
        let has_progressed = session.durable_next_seq() > durable_before;
        // A server that drains has said when it wants to be asked again, however the stream then ended.
        let drained = session.reconnect_at().map_or(Duration::ZERO, |at| at.saturating_sub(now));
        let pause = match parted {
            Ok(Parted::Done) => {
                shared.change(|state| state.connection = State::Done);
                return Ended::Done;
            }
            Ok(Parted::Claimed) => {
                shared.change(|state| state.connection = State::Done);
                return Ended::Claimed;
            }
            Ok(Parted::Stopped) => return Ended::Stopped,
            Ok(Parted::Succeeded) => {
                session = Session::new(1, random.fork());
                gaps = Gaps::default();
                backoff.drained(now, random.f64())
            }
            Ok(Parted::Reconnect) if has_progressed => {
                session.disconnected(None);
                backoff.closed(now);
                drained
            }
            Ok(Parted::Reconnect) => {
                session.disconnected(None);
                drained.max(backoff.drained(now, random.f64()))
            }
            Err(error) => {
                session.disconnected(Some(&error));
                Counters::add(&shared.counters.retries, 1);
                shared.change(|state| {
                    state.connection = state_of(&error);
                    state.last_error = error.to_string();
                });
                let pause = backoff.failed(&error, now, random.f64());
                let attempt = Attempt { error: &error, pause, began_at, now, has_answered, has_progressed };
                let pause = match (&mut patience, pause) {
                    (Some(patience), _) => patience.after(attempt),
                    (None, Pause::For(pause)) => Some(pause),
                    (None, Pause::Forever) => None,
                };
                let Some(pause) = pause else { return Ended::GaveUp(error) };
                refusal = matches!(error, TransportError::PauseAuth { .. } | TransportError::Untrusted { .. })
                    .then_some(error);
                pause.max(drained)
            }
        };
        tokio::select! {
            biased;
            () = stopped(shared) => return Ended::Stopped,
            () = tokio::time::sleep(pause) => {}
            () = mended(&credentials, refusal.as_ref()) => {}
        }
    }
}

/// Returns when the user has changed what only the user can change.
async fn mended(credentials: &Credentials<'_>, refusal: Option<&TransportError>) {
    match refusal {
        Some(refusal) => credentials.mended(refusal).await,
        None => std::future::pending().await,
    }
}

/// Returns when the sender is to end.
async fn stopped(shared: &Shared) {
    let told = shared.stop.notified();
    if !shared.is_stopping.load(Ordering::Acquire) {
        told.await;
    }
}

fn state_of(error: &TransportError) -> State {
    match error {
        TransportError::BadAddress { .. } | TransportError::Blocked { .. } => State::Blocked,
        TransportError::NotRunferry { .. } => State::NotRunferry,
        TransportError::Incompatible { .. } => State::Incompatible,
        TransportError::PauseAuth { .. } => State::Unauthenticated,
        TransportError::Untrusted { .. } => State::Untrusted,
        TransportError::Retry { .. } => State::Connecting,
    }
}

/// One connection, from finding the door to its end.
async fn connect(
    sender: &Sender<impl Dial>,
    source: &mut Outward<impl Source>,
    session: &mut Session,
    backoff: &mut Backoff,
    credentials: &mut Credentials<'_>,
    gaps: &mut Gaps,
    has_answered: &mut bool,
) -> Result<Parted, TransportError> {
    let shared = &*sender.shared;
    let timeouts = sender.timeouts;
    runferry_failpoints::hit!("send.door");
    let door = if sender.base_url.trim_start().starts_with("https:") {
        let secure = Secure::new(&sender.dial, &credentials.trust()?, Tongue::Http)?;
        Door::ask(&secure, &sender.base_url, timeouts.connect).await?
    } else {
        Door::ask(&sender.dial, &sender.base_url, timeouts.connect).await?
    };
    *has_answered = true;
    let key = credentials.key().filter(|_| door.keeps_secrets() || sender.access.sends_plain_key);
    let is_withheld = key.is_none() && credentials.key().is_some();
    let (first_available_seq, next_seq) = source.bounds();
    let request = OpenRequest {
        open_frame: source.open_frame(),
        first_available_seq,
        next_seq,
        client: sender.client.clone(),
        storage_epoch: shared.state().storage_epoch.clone(),
        replay: matches!(sender.behalf, Behalf::Absent | Behalf::Dead),
    };
    let shown = key.as_ref().map(|Hidden(key)| key.as_str());
    let opening = if door.has_tls {
        let secure = Secure::new(&sender.dial, &credentials.trust()?, Tongue::Grpc)?;
        Connection::open(&secure, &door, request.clone(), shown, timeouts).await
    } else {
        Connection::open(&sender.dial, &door, request.clone(), shown, timeouts).await
    };
    let (mut connection, opened) = match opening {
        Err(TransportError::PauseAuth { .. }) if is_withheld => {
            let reason = "none was sent, as http would show it to anybody on the way: use https (RUNFERRY_INSECURE_KEY=1 sends it all the same)";
            return Err(TransportError::PauseAuth { reason: reason.to_owned() });
        }
        opening => refusing(opening, key.as_ref(), credentials)?,
    };
    runferry_failpoints::hit!("send.opened");
    let now = (sender.clock.mono)();
    backoff.opened(now);
    credentials.accepted();
    shared.change(|state| {
        state.connection = State::Connected;
        state.run_url = opened.run_url.clone().unwrap_or_default();
        state.storage_epoch.clone_from(&opened.storage_epoch);
    });
    opened.notices.iter().for_each(|text| shared.notice(text.clone()));
    shared.set_linger(ONLINE_LINGER); // what a server wished holds for its stream
    let resume = session.opened(&request, &opened, now);
    if let Resume::NewWriter { server_next_seq, client_next_seq } = resume {
        if sender.behalf == Behalf::Own {
            let (theirs, ours) = (server_next_seq - 1, client_next_seq - 1);
            return succeed(sender, source, &format!("it has frames up to {theirs} of this writer, which made {ours}"));
        }
        if source.is_over() {
            // All that lies here is there: a writer's disk was full and its last frames went to the server alone, or this is an old copy.
            let local = source.local(client_next_seq);
            shared.acked(local, local);
            part(&mut connection, sender.behalf).await;
            return Ok(Parted::Claimed);
        }
    }
    if let Resume::From { next_seq, .. } = resume
        && is_of_another_life(source, gaps, next_seq, opened.last_frame_hash, shared)
    {
        let reason = format!("it has another frame {} of this writer", next_seq - 1);
        return if sender.behalf == Behalf::Own {
            succeed(sender, source, &reason)
        } else {
            Err(TransportError::Blocked { reason: format!("{reason}: its journal is of a process that was set back") })
        };
    }
    gaps.go_on(&resume, source, shared)?;
    shared.acked(source.local(opened.next_seq), 0);

    loop {
        session.trimmed(source.bounds().0);
        send_what_may_go(sender, source, session, gaps, &connection.outgoing).await?;
        let (_, next_seq) = source.bounds();
        if source.is_over() && session.durable_next_seq() >= next_seq {
            part(&mut connection, sender.behalf).await;
            return Ok(Parted::Done);
        }
        let now = (sender.clock.mono)();
        let deadline = session.next_deadline(now).map_or(Duration::from_secs(60), |at| at.saturating_sub(now));
        tokio::select! {
            biased;
            event = connection.incoming.next_event() => {
                let event = refusing(event, key.as_ref(), credentials)?;
                if let Some(parted) = heed(event, sender, source, session, gaps)? {
                    return Ok(parted);
                }
                continue;
            }
            () = source.more() => {}
            () = tokio::time::sleep(deadline) => {}
        }
        match session.due((sender.clock.mono)())? {
            Due::Nothing => {}
            Due::Beat => connection.outgoing.send_beat(beat(shared, sender.clock, next_seq))?,
            Due::Reconnect => return Ok(Parted::Reconnect),
        }
    }
}

/// Remembers the key that a server has refused, so that another one is tried.
fn refusing<T>(
    answer: Result<T, TransportError>,
    key: Option<&Hidden>,
    credentials: &mut Credentials<'_>,
) -> Result<T, TransportError> {
    if matches!(answer, Err(TransportError::PauseAuth { .. })) {
        credentials.refused(key.cloned());
    }
    answer
}

/// Hands over frames until there is none, or the session says no.
async fn send_what_may_go(
    sender: &Sender<impl Dial>,
    source: &mut impl Source,
    session: &mut Session,
    gaps: &mut Gaps,
    outgoing: &Outgoing,
) -> Result<(), TransportError> {
    let shared = &*sender.shared;
    let counters = &shared.counters;
    let mut round = Vec::new();
    let mut round_bytes = 0;
    loop {
        let seq = session.next_seq();
        let frame = match gaps.get(seq) {
            Some(gap) => Some(gap),
            None => source.frame(seq).map_err(|reason| local_trouble(&reason))?,
        };
        let Some(frame) = frame else { break };
        let size = FrameSize::of(&frame).map_err(|error| local_trouble(&error.to_string()))?;
        match session.offer(size, (sender.clock.mono)()) {
            Verdict::Send => {
                Counters::add(&counters.sent_frames, 1);
                Counters::add(&counters.sent_bytes, size.bytes);
                round_bytes += frame.len();
                round.push(frame);
                if round_bytes >= ROUND_BYTES {
                    send_round(outgoing, std::mem::take(&mut round)).await?;
                    round_bytes = 0;
                }
            }
            Verdict::TooLarge { max_bytes } => {
                let detail = format!("a frame of {} bytes, the server takes {max_bytes}", size.bytes);
                gaps.put(&frame, source, shared, "rejected", &detail);
            }
            Verdict::NotBefore(_) | Verdict::Full | Verdict::Closed | Verdict::NotNext { .. } => break,
        }
    }
    if round.is_empty() { Ok(()) } else { send_round(outgoing, round).await }
}

async fn send_round(outgoing: &Outgoing, frames: Vec<Bytes>) -> Result<(), TransportError> {
    runferry_failpoints::check!("send.frames").map_err(|error| local_trouble(&error.to_string()))?;
    outgoing.send_frames(frames).await?;
    runferry_failpoints::hit!("send.sent");
    Ok(())
}

/// Does what an event asks for; `Some`: the connection has ended.
fn heed(
    event: Event,
    sender: &Sender<impl Dial>,
    source: &mut Outward<impl Source>,
    session: &mut Session,
    gaps: &mut Gaps,
) -> Result<Option<Parted>, TransportError> {
    let shared = &*sender.shared;
    let received = match &event {
        Event::Ack { received_next_seq, .. } => source.local(*received_next_seq),
        _ => 0,
    };
    match session.told(event, (sender.clock.mono)())? {
        Reaction::Nothing => shared.acked(received, 0),
        Reaction::Durable { next_seq } => {
            runferry_failpoints::hit!("send.acked");
            gaps.forget_below(next_seq);
            shared.acked(received, source.local(next_seq));
        }
        Reaction::Resume(resume) => gaps.go_on(&resume, source, shared)?,
        Reaction::ReplaceWithGap { seq, cause } => {
            let (reason, detail) = match cause {
                GapCause::Rejected { reason } => ("rejected", reason),
                GapCause::Corrupt => ("corrupt", "the server refuses its checksum".to_owned()),
            };
            if let Some(frame) = source.frame(seq).map_err(|reason| local_trouble(&reason))? {
                gaps.put(&frame, source, shared, reason, &detail);
            }
        }
        Reaction::Linger(linger) => shared.set_linger(linger),
        Reaction::Draining => {}
        Reaction::Notice(text) => shared.notice(text),
        Reaction::Closed => return Ok(Some(Parted::Reconnect)),
    }
    Ok(None)
}

pub(crate) fn local_trouble(reason: &str) -> TransportError {
    TransportError::Retry {
        cause: RetryCause::Lost,
        reason: format!("the journal cannot be read: {reason}"),
        after: None,
    }
}

/// `next_seq`: as the server counts.
fn beat(shared: &Shared, clock: Clock, next_seq: u64) -> Beat {
    let counters = &shared.counters;
    let state = shared.state();
    let oldest = state.items.front().map_or(Duration::ZERO, |item| (clock.mono)().saturating_sub(item.packed_at));
    Beat {
        next_seq,
        backlog_frames: state.next_seq.saturating_sub(state.durable_next_seq),
        backlog_bytes: state.item_bytes as u64,
        lag_s: oldest.as_secs_f64(),
        dropped_rows: counters.dropped_rows(),
        retries: Counters::get(&counters.retries),
        wall_us: (clock.wall_us)(),
    }
}

/// Says Bye and lets the server end the stream, so that it is not taken for a lost connection.
async fn part(connection: &mut Connection, behalf: Behalf) {
    runferry_failpoints::hit!("send.bye");
    if connection.outgoing.bye(behalf == Behalf::Dead).is_ok() {
        let closing = async { while !matches!(connection.incoming.next_event().await, Ok(Event::Closed) | Err(_)) {} };
        // A server that does not answer has all there is, and nothing more to say.
        tokio::time::timeout(BYE_TIMEOUT, closing).await.ok();
    }
}
