//! One connection to one server: where it is, what may be sent, what the answers mean. No disk, no threads.
//!
//! The engine's thread `rf-send` owns everything here and drives it on its own single-threaded tokio runtime. What needs
//! the network is async and small ([`dial`], [`question`], [`door`], [`connection`]); what decides is plain code that is handed time and
//! randomness, so its tests neither wait nor mock ([`session`], [`window`], [`retry`], [`error`]).
//!
//! # Order of a connection
//! 1. [`Door::ask`](door::Door::ask): `GET /api/v1/door` says whether Runferry is there and where it takes frames. Keys
//!    go only to what has answered as Runferry.
//! 2. [`Connection::open`](connection::Connection::open): the stream, with the answer to Open.
//! 3. [`Session::opened`](session::Session::opened) decides from which frame to go on; from then on it is asked before
//!    each frame and told of each event.
//! 4. On an error, [`Backoff`] says how long to wait before 1.
//!
//! # Failure
//! Every failure is a [`TransportError`], named by what the caller can do next. None loses a frame: the journal has them.

pub mod answer;
pub mod connection;
pub mod dial;
pub mod door;
pub mod error;
mod hostile;
pub mod proto;
pub mod question;
pub mod retry;
pub mod session;
pub mod tls;
pub mod window;

pub use answer::{Durability, Event, Opened};
pub use connection::{Connection, OpenRequest, Timeouts};
pub use dial::{Dial, Tcp};
pub use door::Door;
pub use error::{RetryCause, TransportError};
pub use proto::Beat;
pub use question::Reply;
pub use retry::{Backoff, Pause};
pub use session::{Due, FrameSize, GapCause, Reaction, Resume, Session, Verdict};
pub use tls::{Secure, Tongue, Trust};
