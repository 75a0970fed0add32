//! Names of segments, and which segments a directory holds.
//!
//! # Layout
//! `seg-<first seq, 20 digits>.rfj`. A recovery never appends behind a doubtful tail, so a segment may begin with a
//! number that an older one has begun with, or has passed; it is then named after the newest one, with an ordinal:
//! `seg-<first seq of the newest>-<ordinal, 3 digits>.rfj`. So names sort by when segments were begun. For the numbers
//! in them they only inform: a scan believes what is inside.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::JournalError;

/// Name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) first_seq: u64,
    pub(crate) ordinal: u32,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("seg-")?.strip_suffix(".rfj")?;
        let (seq, ordinal) = match stem.split_once('-') {
            Some((seq, ordinal)) => (seq, number(ordinal)?),
            None => (stem, 0),
        };
        (seq.len() == 20).then_some(())?;
        Some(Self { first_seq: number(seq)?, ordinal: u32::try_from(ordinal).ok()? })
    }

    pub(crate) fn file_name(self) -> String {
        let Self { first_seq, ordinal } = self;
        if ordinal == 0 { format!("seg-{first_seq:020}.rfj") } else { format!("seg-{first_seq:020}-{ordinal:03}.rfj") }
    }

    /// The name of a segment begun with `first_seq` when `newest` is the newest there is.
    pub(crate) fn after(newest: Option<Self>, first_seq: u64) -> Self {
        match newest {
            Some(newest) if newest.first_seq >= first_seq => {
                Self { ordinal: newest.ordinal.saturating_add(1), ..newest }
            }
            _ => Self { first_seq, ordinal: 0 },
        }
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }
}

/// `parse` alone would accept a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The segments of a directory by name. A directory that is not there has none.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>, JournalError> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io("list", dir, error)),
    };
    let mut names: Vec<_> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| SegmentName::parse(entry.name.to_str()?))
        .collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_it_was_written() {
        for name in [(1, 0), (1, 1), (u64::MAX, 0), (77, 1234)] {
            let name = SegmentName { first_seq: name.0, ordinal: name.1 };

            assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        }
    }

    #[test]
    fn a_newer_segment_has_a_greater_name_whatever_its_first_number() {
        let mut newest = None;
        for first_seq in [1, 1, 9, 5, 9, 10] {
            let name = SegmentName::after(newest, first_seq);

            assert!(Some(name) > newest, "{name:?}");
            newest = Some(name);
        }
    }

    #[test]
    fn names_sort_as_their_numbers_do() {
        let mut names =
            ["seg-00000000000000000009-001.rfj", "seg-00000000000000000010.rfj", "seg-00000000000000000009.rfj"]
                .map(|name| SegmentName::parse(name).expect("a segment"));

        names.sort_unstable();

        assert_eq!(names.map(|name| (name.first_seq, name.ordinal)), [(9, 0), (9, 1), (10, 0)]);
    }

    #[test]
    fn other_files_are_no_segments() {
        for name in [
            "ACK",
            "LOCK",
            "seg-1.rfj",
            "seg-+0000000000000000001.rfj",
            "seg-00000000000000000001.rfj.bak",
            "seg-99999999999999999999.rfj",
        ] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
    }
}
