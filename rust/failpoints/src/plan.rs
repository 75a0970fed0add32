//! What happens where: the plan, read from the environment once in a process, and carried out at each hit.
//!
//! # Fork
//! Nothing here takes a lock, so a child forked at any moment can go on. It inherits plan and counts if its parent had a hit before.
//!
//! # Failure
//! A plan that cannot be read ends the process at once, with the reason on stderr: a test that does not do what it says proves nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// Errors that can be asked for by name.
const ERRORS: [(&str, Errno); 9] = [
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
    ("EDQUOT", Errno::DQUOT),
    ("EFBIG", Errno::FBIG),
    ("EROFS", Errno::ROFS),
    ("EACCES", Errno::ACCESS),
    ("EMFILE", Errno::MFILE),
    ("ENOENT", Errno::NOENT),
    ("ECONNRESET", Errno::CONNRESET),
];

/// A site and how often this process came by.
#[derive(Debug)]
pub struct Place {
    site: &'static str,
    hits: AtomicU64,
}

impl Place {
    /// A place nobody came by yet.
    pub const fn new(site: &'static str) -> Self {
        Self { site, hits: AtomicU64::new(0) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Panic,
    Delay(Duration),
    Error(i32),
    Short,
    Value(u64),
}

#[derive(Debug, PartialEq, Eq)]
struct Step {
    site: String,
    action: Action,
    first_hit: u64,
    last_hit: u64,
}

#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    trace: Option<File>,
}

#[expect(clippy::disallowed_methods, reason = "no setting of a product: tests alone reach into the process this way")]
fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let steps = parse(&std::env::var("RUNFERRY_FAILPOINTS").unwrap_or_default());
        let steps = steps.unwrap_or_else(|reason| give_up(&format!("RUNFERRY_FAILPOINTS: {reason}")));
        let trace = std::env::var_os("RUNFERRY_FAILPOINTS_TRACE").map(|path| {
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.unwrap_or_else(|error| give_up(&format!("RUNFERRY_FAILPOINTS_TRACE: {}: {error}", path.display())))
        });
        Plan { steps, trace }
    })
}

fn give_up(reason: &str) -> ! {
    writeln!(io::stderr(), "{reason}").ok();
    std::process::abort()
}

fn parse(text: &str) -> Result<Vec<Step>, String> {
    text.split(';').map(str::trim).filter(|step| !step.is_empty()).map(step).collect()
}

fn step(text: &str) -> Result<Step, String> {
    let wrong = |what: &str| format!("{text:?}: {what}");
    let (site, rest) = text.split_once('=').ok_or_else(|| wrong("site=action is expected"))?;
    let (action, when) = rest.split_once('@').map_or((rest, None), |(action, when)| (action, Some(when)));
    let (first_hit, last_hit) = match when {
        None => (1, u64::MAX),
        Some(when) => {
            let number = when.strip_suffix('+').unwrap_or(when).parse();
            let hit = number.map_err(|error| wrong(&format!("{error}: a hit is a number, 1 or more")))?;
            (hit, if when.ends_with('+') { u64::MAX } else { hit })
        }
    };
    let (name, argument) = action.strip_suffix(')').and_then(|action| action.split_once('(')).unwrap_or((action, ""));
    let number = || argument.parse::<u64>().map_err(|error| wrong(&error.to_string()));
    let action = match name {
        "kill" => Action::Kill,
        "panic" => Action::Panic,
        "short" => Action::Short,
        "delay" => Action::Delay(Duration::from_millis(number()?)),
        "value" => Action::Value(number()?),
        "error" => match ERRORS.iter().find(|(known, _)| *known == argument) {
            Some((_, errno)) => Action::Error(errno.raw_os_error()),
            None => Action::Error(number()? as i32),
        },
        _ => return Err(wrong("the action is one of kill, panic, delay, error, short, value")),
    };
    Ok(Step { site: site.to_owned(), action, first_hit, last_hit })
}

/// Counts the hit, does what can be done here, and says what the place has to do itself.
fn arrive(place: &'static Place) -> Option<Action> {
    let hit = place.hits.fetch_add(1, Ordering::Relaxed) + 1;
    let plan = plan();
    if let Some(mut trace) = plan.trace.as_ref() {
        // One write, so that lines of several processes do not mix.
        let line = format!("{} {}\n", getpid().as_raw_nonzero(), place.site);
        if let Err(error) = trace.write_all(line.as_bytes()) {
            give_up(&format!("RUNFERRY_FAILPOINTS_TRACE: {error}"));
        }
    }
    let is_due = |step: &&Step| step.site == place.site && (step.first_hit..=step.last_hit).contains(&hit);
    let step = plan.steps.iter().find(is_due)?;
    match step.action {
        Action::Kill => loop {
            // The system does not come back from it.
            kill_process(getpid(), Signal::KILL).ok();
        },
        Action::Panic => panic!("fail point {}, hit {hit}", place.site),
        Action::Delay(pause) => {
            std::thread::sleep(pause);
            None
        }
        action @ (Action::Error(_) | Action::Short | Action::Value(_)) => Some(action),
    }
}

/// See [`crate::hit!`].
pub fn hit(place: &'static Place) {
    if let Some(action) = arrive(place) {
        give_up(&format!("{} cannot do {action:?}", place.site));
    }
}

/// See [`crate::check!`].
///
/// # Errors
/// What the plan says.
pub fn check(place: &'static Place) -> io::Result<()> {
    match arrive(place) {
        None => Ok(()),
        Some(Action::Error(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(action) => give_up(&format!("{} cannot do {action:?}", place.site)),
    }
}

/// See [`crate::cut!`].
pub fn cut<'a>(place: &'static Place, bytes: &'a [u8]) -> &'a [u8] {
    match arrive(place) {
        None => bytes,
        Some(Action::Short) => bytes.get(..bytes.len().div_ceil(2)).unwrap_or(bytes),
        Some(action) => give_up(&format!("{} cannot do {action:?}", place.site)),
    }
}

/// See [`crate::value!`].
pub fn value(site: &str, default: u64) -> u64 {
    let found = plan().steps.iter().find_map(|step| match step.action {
        Action::Value(value) if step.site == site => Some(value),
        _ => None,
    });
    found.unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_where_what_and_at_which_hit() {
        let found = parse("a.b=kill@3; c=delay(5);d=error(EIO)@2+ ;e=error(7)").expect("a good plan");

        let step = |site: &str, action, first_hit, last_hit| Step { site: site.into(), action, first_hit, last_hit };
        let expected = vec![
            step("a.b", Action::Kill, 3, 3),
            step("c", Action::Delay(Duration::from_millis(5)), 1, u64::MAX),
            step("d", Action::Error(5), 2, u64::MAX),
            step("e", Action::Error(7), 1, u64::MAX),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_refused_with_the_step() {
        for text in ["a", "a=explode", "a=kill@x", "a=delay", "a=error(EVERYTHING)"] {
            let reason = parse(text).expect_err("refused");

            assert!(reason.contains(text), "{reason}");
        }
    }
}
