//! What tells one process of one machine from another: boot id, process start, host name.

use std::path::Path;

use runferry_wire::Doc;

/// The machine's boot; zeros where the system does not tell.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| (byte as char).to_digit(16)).map(|digit| digit as u8).collect();
    let mut id = [0; 16];
    for (slot, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        if let [high, low] = pair {
            *slot = high << 4 | low;
        }
    }
    id
}

/// The boot id as text.
pub fn boot_id_text() -> String {
    hex(boot_id())
}

/// 16 bytes as 32 digits: the folder of a run.
pub fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Whether the process that wrote the OPEN map `open` is known to be gone: it was on this machine, and no process is left that could be it.
pub fn is_gone(open: &Doc) -> bool {
    let boot_id = open.get_str("boot_id").map(|id| id.replace('-', ""));
    if boot_id.is_some_and(|id| id != boot_id_text()) || !Path::new("/proc/self").exists() {
        // From before a restart of this machine; or the system tells nothing of processes, and the free lock has to do.
        return open.get_str("host").is_some_and(|name| name == host());
    }
    let (Some(pid), Some(opened_us)) = (open.get_int("pid"), open.get_int("boottime_us")) else { return false };
    let started_us = u32::try_from(pid).map_or(0, start_ticks).saturating_mul(1_000_000) / ticks_per_s();
    !Path::new(&format!("/proc/{pid}")).exists() || started_us > opened_us.unsigned_abs()
}

fn ticks_per_s() -> u64 {
    let told = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    told.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// When process `pid` started, in clock ticks since boot; 0 where the system does not tell.
pub fn start_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; field 22 is the 20th behind it.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The host's name.
pub fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// Where shared memory lies.
pub fn shm_dir() -> &'static Path {
    Path::new("/dev/shm")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE_ANY_PROCESS_US: i64 = 1;

    fn open(boot_id: &str, host: &str, pid: u32, boottime_us: i64) -> Doc {
        let mut open = Doc::Map(Vec::new());
        open.set("boot_id", Doc::Str(boot_id.to_owned()));
        open.set("host", Doc::Str(host.to_owned()));
        open.set("pid", Doc::Int(i64::from(pid)));
        open.set("boottime_us", Doc::Int(boottime_us));
        open
    }

    #[test]
    fn a_process_of_this_boot_is_gone_when_its_number_is_free_or_another_ones() {
        let (boot, pid) = (boot_id_text(), std::process::id());

        assert!(!is_gone(&open(&boot, "", pid, i64::MAX)), "this very process");
        assert!(is_gone(&open(&boot, "", pid, BEFORE_ANY_PROCESS_US)), "it started later than the other one opened");
        assert!(is_gone(&open(&boot, "", u32::MAX, i64::MAX)), "no process has that number");
    }

    #[test]
    fn a_process_of_an_earlier_boot_is_gone_and_of_one_elsewhere_nothing_is_known() {
        let pid = std::process::id();

        assert!(is_gone(&open("an earlier boot", &host(), pid, i64::MAX)));
        assert!(!is_gone(&open("another machine", "elsewhere", pid, i64::MAX)));
        assert!(!is_gone(&Doc::Map(Vec::new())));
    }
}
