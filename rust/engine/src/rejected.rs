//! Frames that the server refuses for good: set aside in `rejected/` beside the journal, each as a segment of its own.
//!
//! A GAP takes the place of such a frame and the journal is trimmed behind it, so without a copy here the rows would be gone. Each
//! copy begins with the OPEN frame: `runferry journal cat <writer>/rejected` shows it, like any journal.
//!
//! # Bounds
//! A server that refuses everything must not fill the disk: beyond [`MOST_BYTES`] a writer keeps the count in the GAP alone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runferry_journal::Disk;
use runferry_wire::Header;

/// The folder, in that of the writer. `sync` and adopters pass it by.
pub(crate) const FOLDER: &str = "rejected";
/// Most bytes a writer sets aside.
const MOST_BYTES: u64 = 256 << 20;

/// Where a writer's refused frames go.
#[derive(Debug)]
pub(crate) struct Rejected {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes: u64,
}

impl Rejected {
    /// Nothing set aside yet. `writer_dir` is the journal's folder.
    pub(crate) fn new(disk: Arc<dyn Disk>, writer_dir: &Path) -> Self {
        Self { disk, dir: writer_dir.join(FOLDER), bytes: 0 }
    }

    /// Keeps a copy of `frame`; the folder it lies in, or why there is none.
    pub(crate) fn keep(&mut self, open_frame: &[u8], header: &Header, frame: &[u8]) -> Result<&Path, String> {
        let bytes = (open_frame.len() + frame.len()) as u64;
        if self.bytes + bytes > MOST_BYTES {
            return Err(format!("{} MiB of such frames are kept already", MOST_BYTES >> 20));
        }
        match self.write(header.seq, &[open_frame, frame].concat()) {
            Ok(()) => self.bytes += bytes,
            // The same frame was refused before, to this process or another.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: {error}", self.dir.display())),
        }
        Ok(&self.dir)
    }

    fn write(&self, seq: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.make_dirs(&self.dir)?;
        let path = self.dir.join(format!("seg-{seq:020}.rfj"));
        let file = self.disk.create_new(&path)?;
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match file.pwrite(rest, written as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) => {
                    // Half a frame is of no use to anybody; litter if it stays.
                    self.disk.unlink(&path).ok();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use runferry_journal::RealDisk;
    use runferry_wire::{Doc, Kind};

    use super::*;
    use crate::batch::{Identity, map_frame};

    fn frame(kind: Kind, seq: u64) -> Vec<u8> {
        map_frame(Identity { run_id: [1; 16], writer_id: 2 }, kind, seq, 1, 0, &Doc::Map(Vec::new()))
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("runferry-rejected-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        dir
    }

    #[test]
    fn a_refused_frame_lies_behind_its_open_frame_and_once_however_often_it_is_refused() {
        let dir = scratch("once");
        let mut rejected = Rejected::new(Arc::new(RealDisk), &dir);
        let (open, data) = (frame(Kind::Open, 7), frame(Kind::Finish, 7));
        let header = Header::decode(&data).expect("a frame");

        for _ in 0..3 {
            assert_eq!(rejected.keep(&open, &header, &data), Ok(dir.join(FOLDER).as_path()));
        }

        let kept = std::fs::read(dir.join(FOLDER).join("seg-00000000000000000007.rfj")).expect("a copy");
        assert_eq!(kept, [open, data].concat());
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn more_than_the_bound_is_not_kept_and_says_so() {
        let dir = scratch("bound");
        let mut rejected = Rejected::new(Arc::new(RealDisk), &dir);
        rejected.bytes = MOST_BYTES - 10;
        let data = frame(Kind::Finish, 7);
        let header = Header::decode(&data).expect("a frame");

        let said = rejected.keep(&[], &header, &data).expect_err("no room");

        assert!(said.contains("256 MiB"), "{said}");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
