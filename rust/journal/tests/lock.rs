//! The lock between real processes: this test binary starts itself again as the other ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use runferry_descriptors::listed;
use runferry_journal::{Lock, LockError, LockInfo};
use rustix::io::{FdFlags, fcntl_setfd};

/// Names the part a process started by a test has to play, and its directory.
const PART: &str = "RUNFERRY_LOCK_TEST_PART";
const DIR: &str = "RUNFERRY_LOCK_TEST_DIR";

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("runferry-lock-{}-{count}", std::process::id()));
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok(); // a leftover in the temporary directory harms nobody
    }
}

fn info() -> LockInfo {
    LockInfo { pid: std::process::id(), host: "here".into(), base_url: Some("http://x".into()), ..LockInfo::default() }
}

/// Starts this binary in another part; its output begins where the part says `:`.
fn start(part: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "plays_its_part", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// The next line that a part says, without the test runner's own.
fn line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().expect("piped");
    let mut lines = BufReader::with_capacity(1, stdout).lines();
    loop {
        let line = lines.next().expect("the part says something").expect("readable");
        if let Some((_, said)) = line.split_once("said: ") {
            return said.to_owned();
        }
    }
}

/// Not a test by itself: what the processes started by the tests do.
#[test]
#[expect(clippy::disallowed_methods, reason = "the only way to tell a test binary what to do")]
fn plays_its_part() {
    let (Ok(part), Ok(dir)) = (std::env::var(PART), std::env::var(DIR)) else { return };
    let dir = PathBuf::from(dir);
    match part.as_str() {
        "race" => {
            println!("said: ready");
            std::io::stdin().read_exact(&mut [0]).expect("the starting signal");
            let lock = Lock::acquire(&dir, &info());
            match &lock {
                Ok(_) => println!("said: won"),
                Err(LockError::Held(_)) => println!("said: lost"),
                Err(error) => println!("said: {error}"),
            }
            std::io::stdin().read_to_end(&mut Vec::new()).expect("the end signal");
        }
        "hold, with a child that inherits the descriptor" => {
            let lock = Lock::acquire(&dir, &info()).expect("free");
            fcntl_setfd(lock.as_fd(), FdFlags::empty()).expect("inheritable");
            let sleeper = Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            println!("said: {}", sleeper.expect("started").id());
            std::io::stdin().read_to_end(&mut Vec::new()).expect("never");
        }
        other => panic!("no such part: {other}"),
    }
}

// fault: 29
#[test]
fn of_eight_processes_that_race_for_a_lock_one_wins() {
    let dir = TempDir::new();
    let mut racers: Vec<_> = (0..8).map(|_| start("race", &dir.0)).collect();
    for racer in &mut racers {
        assert_eq!(line(racer), "ready");
    }

    for racer in &mut racers {
        racer.stdin.as_mut().expect("piped").write_all(b"!").expect("alive");
    }

    let mut outcomes: Vec<_> = racers.iter_mut().map(line).collect();
    for racer in &mut racers {
        drop(racer.stdin.take());
        assert!(racer.wait().expect("ended").success());
    }
    outcomes.sort();
    assert_eq!(outcomes, [["lost"; 7].as_slice(), &["won"]].concat());
    Lock::acquire(&dir.0, &info()).expect("the winner is gone");
}

// fault: 30
#[test]
fn a_child_that_outlives_its_killed_parent_leaves_the_lock_free() {
    let dir = TempDir::new();
    let mut parent = start("hold, with a child that inherits the descriptor", &dir.0);
    let sleeper: i32 = line(&mut parent).parse().expect("a pid");
    assert!(matches!(Lock::acquire(&dir.0, &info()), Err(LockError::Held(holder)) if holder.pid == parent.id()));
    let inherited = std::fs::read_dir(format!("/proc/{sleeper}/fd")).expect("alive");
    let lock_file = dir.0.canonicalize().expect("there").join("LOCK");
    let holds_it = inherited.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path == lock_file));
    assert!(holds_it, "the child has the descriptor, or the test says nothing");

    parent.kill().expect("killed");
    parent.wait().expect("ended");

    let lock = Lock::acquire(&dir.0, &info());
    let is_alive = Path::new(&format!("/proc/{sleeper}/fd")).exists();
    let pid = rustix::process::Pid::from_raw(sleeper).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    lock.expect("the lock died with the parent");
    assert!(is_alive, "the child outlived its parent");
}

#[test]
fn two_locks_of_one_process_keep_each_other_out() {
    let dir = TempDir::new();
    let first = Lock::acquire(&dir.0, &info()).expect("free");

    let second = Lock::acquire(&dir.0.join("."), &info());

    assert!(matches!(second, Err(LockError::Held(holder)) if holder == info()));
    drop(first);
    Lock::acquire(&dir.0, &info()).expect("free again");
}

#[test]
fn reading_who_holds_a_lock_does_not_free_it() {
    let dir = TempDir::new();
    let _lock = Lock::acquire(&dir.0, &info()).expect("free");

    assert_eq!(LockInfo::read(&dir.0).expect("readable"), info());

    let mut other = start("race", &dir.0);
    assert_eq!(line(&mut other), "ready");
    other.stdin.take().expect("piped").write_all(b"!").expect("alive");
    assert_eq!(line(&mut other), "lost");
    assert!(other.wait().expect("ended").success());
}

// fault: 31
#[test]
fn a_stale_or_forged_lock_file_keeps_nobody_out() {
    let dir = TempDir::new();
    std::fs::create_dir_all(&dir.0).expect("made");
    std::fs::write(dir.0.join("LOCK"), format!("pid=1\nhost={}\n", "x".repeat(100_000))).expect("written");

    let lock = Lock::acquire(&dir.0, &info()).expect("nobody holds it");

    drop(lock);
    assert_eq!(LockInfo::read(&dir.0).expect("readable"), info(), "the forged text is gone");
}

#[test]
fn a_held_lock_is_listed_for_fork_handlers() {
    let dir = TempDir::new();
    let lock = Lock::acquire(&dir.0, &info()).expect("free");
    let path = dir.0.canonicalize().expect("there").join("LOCK");
    let names_it = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|target| target == path);

    assert!(listed().any(names_it));

    drop(lock);
    assert!(!listed().any(names_it));
}
