//! One small question to a server's read door, from a thread of the caller's that looks up now and then.
//!
//! `init` asks so where a run goes to and whether its key is good. It goes the way of the sender's own question, so what is found out
//! here is what the sender will find, and Python imports neither its TLS nor its HTTP for it: 40 ms and 4 MiB of every training.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use runferry_transport::question;
use runferry_transport::{RetryCause, Secure, Tcp, Tongue, TransportError};
use tokio::runtime::{Builder, Runtime};

use crate::credentials::{Access, Credentials};

pub use runferry_transport::Reply;

/// What is asked of whom.
#[derive(Debug)]
pub struct Question {
    /// `http://host:port[/prefix]`, or `https`.
    pub base_url: String,
    /// Below it, with the slash.
    pub path: String,
    /// To be shown.
    pub api_key: Option<String>,
    /// PEM file of the authorities to trust; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// For name lookup and TCP, and again for the answer.
    pub timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nobody is there now, or nobody that has time.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// Somebody else is there.
    #[error("{0} answers, but is no Runferry server: {1}")]
    NotRunferry(String, String),
    /// Who is there cannot be believed. Nothing was sent.
    #[error("the certificate of {0} is not trusted: {1}")]
    Untrusted(String, String),
    /// The address cannot be used as it is written.
    #[error("{0} cannot be asked: {1}")]
    BadAddress(String, String),
}

impl Unanswered {
    fn of(base_url: &str, error: TransportError) -> Self {
        let whom = base_url.to_owned();
        match error {
            TransportError::Retry { cause: RetryCause::Broken, reason, .. }
            | TransportError::NotRunferry { reason, .. }
            // None of these comes of a single question.
            | TransportError::PauseAuth { reason }
            | TransportError::Blocked { reason }
            | TransportError::Incompatible { reason } => Self::NotRunferry(whom, reason),
            TransportError::Retry { reason, .. } => {
                let without = reason.strip_prefix(base_url).and_then(|rest| rest.strip_prefix(": "));
                Self::Unreachable(whom, without.unwrap_or(&reason).to_owned())
            }
            TransportError::Untrusted { reason, .. } => Self::Untrusted(whom, reason),
            TransportError::BadAddress { reason, .. } => Self::BadAddress(whom, reason),
        }
    }
}

type Answer = Result<Reply, Unanswered>;

/// A question under way. Dropped, it is given up.
pub struct Asking {
    runtime: Option<Runtime>,
    answering: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

impl Asking {
    /// Begins; nothing happens but in [`Asking::wait`].
    ///
    /// # Errors
    /// The system has no more of what a runtime needs.
    pub fn new(question: Question) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("rf-look-up").build()?;
        Ok(Self { runtime: Some(runtime), answering: Box::pin(answer(question)) })
    }

    /// The answer, if it comes so soon. Not to be called again after that.
    pub fn wait(&mut self, longest: Duration) -> Option<Answer> {
        let Self { runtime, answering } = self;
        let waiting = async { tokio::time::timeout(longest, answering).await.ok() };
        runtime.as_ref().and_then(|runtime| runtime.block_on(waiting))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Not by dropping it: that waits for a name lookup under way, which can take half a minute.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(question: Question) -> Answer {
    exchange(&question).await.map_err(|error| Unanswered::of(&question.base_url, error))
}

async fn exchange(question: &Question) -> Result<Reply, TransportError> {
    let Question { base_url, path, api_key, ca_file, timeout } = question;
    let key = api_key.as_deref();
    if base_url.trim_start().starts_with("https:") {
        let access = Access { ca_file: ca_file.clone(), ..Access::default() };
        let trust = Credentials::new(&access, base_url).trust()?;
        let secure = Secure::new(&Tcp, &trust, Tongue::Http)?;
        question::get(&secure, base_url, path, key, *timeout).await
    } else {
        question::get(&Tcp, base_url, path, key, *timeout).await
    }
}
