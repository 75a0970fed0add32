//! Many worlds, each from its seed: whatever goes wrong, every row is stored once or its absence is named.
//!
//! `RUNFERRY_EFFORT_SEEDS` says how many worlds, `RUNFERRY_SIM_FIRST_SEED` where they begin, `RUNFERRY_SIM_SEED` names the one to be
//! lived alone, with its events printed.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runferry_sim::broken::Broken;
use runferry_sim::world::{Outcome, live};

/// Worlds within which a broken rule has to show.
const MOST_WORLDS: u64 = 100;

#[expect(clippy::disallowed_methods, reason = "how hard a test tries is told by the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn command(seed: u64) -> String {
    format!("RUNFERRY_SIM_SEED={seed} cargo test --release -p runferry-sim --test seeds one_world -- --nocapture")
}

// fault: 3, 4, 5, 7, 8, 9, 10, 12, 18, 19, 20, 21, 22, 34, 35, 36, 37, 39, 42, 43, 44, 45, 49, 50
#[test]
fn in_every_world_each_row_is_stored_once_or_its_absence_is_named() {
    let seeds = number("RUNFERRY_EFFORT_SEEDS").unwrap_or(400);
    let first = number("RUNFERRY_SIM_FIRST_SEED").unwrap_or(1);
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let outcome = live(seed, None, false);
                    totals.lock().expect("no thread panicked").add(seed, &outcome);
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panicked");
    println!("{} s: {totals:?}", started.elapsed().as_secs());

    let failures =
        totals.failures.iter().take(20).map(|(seed, why)| format!("seed {seed}: {why}\n  {}\n", command(*seed)));
    let failures: String = failures.collect();
    assert!(totals.failures.is_empty(), "{} of {seeds} worlds broke a rule:\n{failures}", totals.failures.len());
    assert!(
        totals.stored > 0 && totals.duplicates > 0 && totals.gapped > 0,
        "the worlds were too peaceful: {totals:?}"
    );
}

#[derive(Debug, Default)]
struct Totals {
    worlds: u64,
    simulated: Duration,
    longest_healing: Duration,
    returned: u64,
    stored: u64,
    gapped: u64,
    excused: u64,
    frames: u64,
    duplicates: u64,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.worlds += 1;
        self.simulated += outcome.lasted;
        self.longest_healing = self.longest_healing.max(outcome.healed_in);
        match &outcome.judged {
            Ok(counts) => {
                self.returned += counts.returned;
                self.stored += counts.stored;
                self.gapped += counts.gapped;
                self.excused += counts.excused;
                self.frames += counts.frames;
                self.duplicates += counts.duplicates;
            }
            Err(broken) => {
                let first: Vec<_> = broken.iter().take(3).map(String::as_str).collect();
                self.failures.push((seed, format!("{} ({} in all)", first.join("; "), broken.len())));
            }
        }
    }
}

#[test]
fn one_world_is_the_same_each_time() {
    let seed = number("RUNFERRY_SIM_SEED");
    let seeds: Vec<u64> = seed.map_or((1..21).collect(), |seed| vec![seed]);
    for &seed in &seeds {
        let (once, again) = (live(seed, None, true), live(seed, None, true));

        if seeds.len() == 1 {
            once.lines.iter().for_each(|line| println!("{line}"));
            assert!(once.judged.is_ok(), "{:#?}", once.judged);
        }
        let differs = once.lines.iter().zip(&again.lines).position(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}: {:?}", differs.map(|at| (&once.lines[at], &again.lines[at])));
        assert_eq!(once.digest, again.digest, "seed {seed}");
    }
    assert_ne!(live(1, None, false).digest, live(2, None, false).digest);
}

#[test]
fn a_rule_that_does_not_hold_is_found_within_some_worlds() {
    for broken in Broken::ALL {
        let found = (1..=MOST_WORLDS).find_map(|seed| Some((seed, live(seed, Some(broken), false).judged.err()?)));

        println!("{broken:?}: {:?}", found.as_ref().map(|(seed, why)| (seed, why.first())));
        assert!(found.is_some(), "{broken:?} shows in none of {MOST_WORLDS} worlds");
    }
}
