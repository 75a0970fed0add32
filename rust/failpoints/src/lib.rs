//! Fail points: named places where a test can kill, break or delay this process at an exact moment.
//!
//! Without the feature `enabled` each macro is nothing, or its default: wheels hold neither the code nor a site's name
//! (`tests/fault/test_failpoints.py` looks). With it two environment variables, read at the first hit, say what happens:
//!
//! - `RUNFERRY_FAILPOINTS`: `site=action`, separated by `;`. Actions: `kill` (SIGKILL of the process), `panic`, `delay(MILLISECONDS)`,
//!   `error(EIO)` (a name of [`plan`] or a number; at sites of [`check!`]), `short` (half of the bytes; at sites of [`cut!`]),
//!   `value(N)` (at sites of [`value!`]). Behind an action `@3` is the third hit of this process, `@3+` that and every later one; nothing:
//!   every hit. A site may be named more than once: `journal.write=short@3;journal.write=kill@4` tears the third write.
//! - `RUNFERRY_FAILPOINTS_TRACE`: a file to which each hit appends a line, `PID SITE`, before anything happens there. So it tells which
//!   pairs of site and hit a program has, whatever becomes of it.
//!
//! # Names
//! `area.moment`, each used at one place in the code: a place counts its own hits.

#[cfg(any(test, feature = "enabled"))]
pub mod plan;

/// A place where the process may be killed, panic or be held up.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! hit {
    ($site:literal) => {
        $crate::plan::hit($crate::place!($site))
    };
}

/// A place where the process may be killed, panic or be held up.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! hit {
    ($site:literal) => {};
}

/// A place that may also fail: an [`std::io::Result`] of nothing.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! check {
    ($site:literal) => {
        $crate::plan::check($crate::place!($site))
    };
}

/// A place that may also fail: an [`std::io::Result`] of nothing.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! check {
    ($site:literal) => {
        ::std::io::Result::<()>::Ok(())
    };
}

/// Bytes about to be written, or half of them.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! cut {
    ($site:literal, $bytes:expr) => {
        $crate::plan::cut($crate::place!($site), $bytes)
    };
}

/// Bytes about to be written, or half of them.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! cut {
    ($site:literal, $bytes:expr) => {
        $bytes
    };
}

/// A number that a test may replace.
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! value {
    ($site:literal, $default:expr) => {
        $crate::plan::value($site, $default)
    };
}

/// A number that a test may replace.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! value {
    ($site:literal, $default:expr) => {
        $default
    };
}

/// The site with the count of its hits.
#[cfg(feature = "enabled")]
#[doc(hidden)]
#[macro_export]
macro_rules! place {
    ($site:literal) => {{
        static PLACE: $crate::plan::Place = $crate::plan::Place::new($site);
        &PLACE
    }};
}
