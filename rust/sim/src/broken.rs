//! Rules that a world can be made to break, one at a time: proof that the checker would see a client or server that breaks them.

/// A rule that is broken for the whole life of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The server says durable when it has only received.
    AckBeforeCommit,
    /// The server stores what comes twice.
    DuplicatesStored,
    /// An adopter does not look at the ring's intent, and gives old records new numbers.
    IntentForgotten,
    /// Segments leave the journal before the server has them.
    TrimBeforeAck,
    /// fsync answers, and does nothing.
    FsyncLies,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::AckBeforeCommit, Self::DuplicatesStored, Self::IntentForgotten, Self::TrimBeforeAck, Self::FsyncLies];
}
