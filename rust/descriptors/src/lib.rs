//! Which descriptors of this process a forked child must close.
//!
//! A child inherits every open descriptor and none of the threads that use ours. Left open they keep unlinked segments on
//! the disk, a file system busy, and a connection alive whose trainer is long dead. A fork handler may take no lock and no
//! memory, so the list is a table of plain atomics.
//!
//! # Order
//! A descriptor is listed after it was opened and unlisted before it is closed: at a fork in between, the child keeps one too
//! many. The other way round it would close a descriptor that is somebody else's by now.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Descriptors that the table has room for. One beyond stays open in children, where it does little harm.
const MAX_LISTED: usize = 512;

/// Descriptors plus one, so that 0 is an empty place.
static LISTED: [AtomicI32; MAX_LISTED] = [const { AtomicI32::new(0) }; MAX_LISTED];

/// A descriptor's place in the list, given up on drop. Keep it in front of the descriptor's owner: fields are dropped in order.
#[derive(Debug)]
pub struct Listed {
    place: Option<&'static AtomicI32>,
    fd: RawFd,
}

impl Listed {
    /// Lists the descriptor of `owner`.
    pub fn new(owner: &impl AsRawFd) -> Self {
        let fd = owner.as_raw_fd();
        let is_taken =
            |place: &&AtomicI32| place.compare_exchange(0, fd + 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        Self { place: LISTED.iter().find(is_taken), fd }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // In a forked child the place may be somebody else's by now.
            place.compare_exchange(self.fd + 1, 0, Ordering::AcqRel, Ordering::Acquire).ok();
        }
    }
}

/// The listed descriptors. Takes no lock and no memory.
pub fn listed() -> impl Iterator<Item = RawFd> {
    LISTED.iter().map(|place| place.load(Ordering::Acquire)).filter(|&place| place != 0).map(|place| place - 1)
}

/// In a forked child: takes every descriptor off the list, to be closed now. Their owners must never be dropped. Takes no lock and
/// no memory.
pub fn take_inherited() -> impl Iterator<Item = RawFd> {
    LISTED.iter().map(|place| place.swap(0, Ordering::AcqRel)).filter(|&place| place != 0).map(|place| place - 1)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_descriptor_is_listed_from_its_opening_to_just_before_its_end() {
        let file = File::open("/dev/null").expect("it is there");
        let fd = file.as_raw_fd();
        assert!(listed().all(|other| other != fd));

        let place = Listed::new(&file);
        assert!(listed().any(|other| other == fd));

        drop(place);
        assert!(listed().all(|other| other != fd));
    }
}
