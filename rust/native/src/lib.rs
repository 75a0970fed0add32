//! runferry._native: the Python binding. Conversion only.

mod ask;
mod call;
mod charts;
mod direct;
mod documents;
mod errors;
mod fork;
mod frames;
mod histogram;
mod journals;
mod long_call;
mod memory;
mod metrics;
mod numpy;
mod receipts;
mod row;
mod seen;
mod status;
mod store;
mod told;
mod under_gil;
mod writer;

use pyo3::prelude::*;

/// The Rust core of Runferry.
#[pymodule]
mod _native {
    use super::{Bound, PyModule, PyResult};
    #[pymodule_export]
    use crate::ask::ask;
    #[pymodule_export]
    use crate::charts::{Buckets, Heads, SeriesRead, series_json};
    #[pymodule_export]
    use crate::fork::{hurry, leave};
    #[pymodule_export]
    use crate::frames::{decode_rows, documents, message_parts, pack_frame, verify_frames};
    #[pymodule_export]
    use crate::histogram::{histogram_decode, histogram_encode, histogram_from_bytes, run_key};
    #[pymodule_export]
    use crate::journals::{Follower, journal_frames, journal_fsck, journal_list, local_last_step, sync};
    #[pymodule_export]
    use crate::metrics::{Metrics, StoredMetrics};
    #[pymodule_export]
    use crate::receipts::{StoredSums, journal_receipt, sums_together};
    #[pymodule_export]
    use crate::store::{Merge, Scan, Tail, verify_chunks};
    #[pymodule_export]
    use crate::writer::Writer;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::fork::watch();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
