//! Nothing: the benches lie in `benches/`, one file a crate.
//!
//! `cargo bench -p runferry-bench --bench frames` (wire), `merge` (columns), `hand_off` (ring), `append` (journal).
