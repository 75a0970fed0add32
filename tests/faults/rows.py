"""The rows of the table. Numbers are for good: a fault that cannot happen any more keeps its row and says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for things to go wrong."""

    number: int
    what: str
    promise: str
    """What must hold whenever it happens."""
    untested: str = ""
    """Which part no test provokes, and why. A row without tests must have it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Faults of one kind."""

    title: str
    faults: tuple[Fault, ...]


GROUPS = (
    Group(
        "The training process is killed",
        (
            Fault(1, "SIGKILL inside `log()`", "the call that was cut off may be missing, no other"),
            Fault(2, "SIGKILL right after `log()` returned", "the row comes back from the crash ring"),
            Fault(3, "SIGKILL between taking rows from the ring and writing the journal", "they are still in the ring"),
            Fault(4, "SIGKILL in the middle of a write", "the torn tail is ignored; its rows are still in the ring"),
            Fault(5, "SIGKILL after the write, before the ring is released", "one copy: the ring says which frame holds the rows"),
            Fault(6, "SIGKILL while compressing, rotating, syncing, trimming", "nothing is lost; leftovers are ignored or removed"),
            Fault(7, "SIGKILL while sending, or before the ack arrives", "sent again; the server drops the copy"),
            Fault(8, "SIGKILL of the recovery, again and again", "recovery can be repeated without harm"),
            Fault(29, "several processes adopt one orphan", "one wins, the others leave it alone"),
            Fault(30, "the trainer is killed, a forked worker of it lives on", "the lock is free and the journal adopted"),
            Fault(31, "stale lock, process id used again, other boot, other pid namespace", "the lock decides, never the number in it"),
            Fault(67, "OOM kill by the cgroup; an allocation of ours fails", "the ring survives; training goes on where it can"),
            Fault(75, "a panic in a thread of ours", "caught and told; training goes on; the next `init` adopts the rest"),
            Fault(76, "a container is stopped: SIGTERM, a grace period, SIGKILL", "the journal is complete"),
            Fault(77, "somebody truncates the ring's file", "documented: a mapped file cut under a process raises SIGBUS"),
        ),
    ),
    Group(
        "Processes, threads and the end of the program",
        (
            Fault(61, "`log()` from 64 threads, millions of rows", "bounded waits; counts are exact"),
            Fault(
                62, "fork after `init`, while logging, many workers", "no deadlock; the parent is unharmed; children write or are counted"
            ),
            Fault(63, "vfork, posix_spawn, subprocess, exec", "no effect on the run, or its journal is adopted"),
            Fault(64, "spawn, forkserver, pools, launchers, notebooks that call `init` again", "new writers of the same run"),
            Fault(
                65, "SIGTERM, SIGINT once and twice, SIGHUP, SIGPIPE, a storm of SIGALRM", "the user's handlers stay; no call is cut short"
            ),
            Fault(
                66,
                "every way to end a program, `log()` in `__del__`, in atexit, in daemon threads",
                "no hang, no crash, the right exit code",
            ),
            Fault(78, "`finish()` with no server", "returns in its timeout, and names the command that sends the rest"),
            Fault(32, "the wall clock jumps", "no reordering, no lost heartbeat, no stuck retry"),
            Fault(33, "the process is stopped for minutes and goes on", "it reconnects; the run is running again"),
            Fault(68, "no CPU left for our threads", "nothing is lost; heartbeats arrive in time"),
        ),
    ),
    Group(
        "Disks of the client",
        (
            Fault(10, "power is cut", "what was synced is there; the journal is clean"),
            Fault(12, "writes not synced are reordered or torn", "every state recovers to a prefix and named gaps"),
            Fault(13, "torn header, torn payload, tail of zeros or of garbage", "all whole frames are read"),
            Fault(14, "a bit flips in a payload", "a GAP of exactly this frame"),
            Fault(15, "a bit flips in a header", "reading finds the next frame; the hole is a GAP"),
            Fault(16, "a segment is missing, empty, swapped, doubled, renamed", "gaps or copies, never a crash"),
            Fault(17, "the file that remembers acks is corrupt, old or from the future", "frames are sent again at worst"),
            Fault(18, "the journal's disk is full", "sending goes on, drops are counted GAPs, space heals it"),
            Fault(19, "the disk fills in the middle of a frame", "the frame is taken back and written elsewhere or later"),
            Fault(20, "quota, file size limit, SIGXFSZ", "as a full disk; the process lives"),
            Fault(21, "EIO on write", "the segment is sealed, a new one or another folder goes on"),
            Fault(22, "EIO on sync once, then success", "never trusted: what was in doubt is written again"),
            Fault(23, "sync lies, then power is cut", "the journal is readable; what the disk promised falsely is gone"),
            Fault(24, "a sync takes half a minute", "`log()` does not wait for it"),
            Fault(25, "the folder is read-only, forbidden, deleted under us", "another folder, or memory only; told once"),
            Fault(
                26, "the journal is on tmpfs, overlay, NFS", "works; says what a power cut takes", "NFS: needs an NFS server in the kernel"
            ),
            Fault(27, "shared memory missing, full or tiny", "the ring goes elsewhere; `kill_safe` tells when it is not"),
            Fault(28, "no file descriptors left", "open files work on; the rest is tried again"),
        ),
    ),
    Group(
        "The network",
        (
            Fault(34, "the server is restarted cleanly", "it says so; clients come back spread out; nothing is lost"),
            Fault(35, "the server is killed, over and over", "sending resumes at the number the server wants"),
            Fault(42, "the peer is gone without a word (half-open TCP)", "noticed in seconds"),
            Fault(43, "one direction is dead, acks are lost", "sent again, stored once"),
            Fault(44, "a reset after any number of bytes", "sending resumes"),
            Fault(45, "latency, jitter, a thin line", "throughput by window; memory bounded"),
            Fault(46, "a slow or stalled server", "the journal grows, `log()` does not slow down"),
            Fault(47, "connections are accepted, and then nothing", "given up after the connect timeout"),
            Fault(48, "names do not resolve, or to another address than before", "resolved anew for each attempt"),
            Fault(50, "a server that is up for a moment at a time", "the pause between attempts keeps growing until it is healthy"),
        ),
    ),
    Group(
        "What a server can answer",
        (
            Fault(36, "the server lost all its data", "what the journal still has is sent again, the rest is a GAP"),
            Fault(37, "the database was restored from an old backup", "the journals refill it, or a GAP tells"),
            Fault(38, "the server knows more than the writer", "a new writer goes on; nothing is overwritten"),
            Fault(49, "throttling with short, long, absurd or no hints", "obeyed within bounds, with jitter"),
            Fault(51, "the key is wrong, expired, revoked in mid-stream", "nothing is lost; a new key heals it; training never waits"),
            Fault(
                52,
                "the certificate is expired, of another host, the authority was replaced",
                "told clearly; never a fallback to plain text",
            ),
            Fault(53, "run deleted, no permission, over quota", "`blocked`: the journal stays and training goes on"),
            Fault(54, "versions that do not know each other", "agree on what both know, or say `incompatible`"),
            Fault(58, "hostile answers: endless credit, acks of what was never sent, random bytes", "cut off; nothing un-acked is deleted"),
            Fault(71, "the client believes more durable than the server has", "the server's number wins"),
        ),
    ),
    Group(
        "What a client can send",
        (
            Fault(39, "frames, journals, whole uploads sent twice or at once", "counted, one copy"),
            Fault(40, "frames out of order or skipped", "asked for again; no hole is stored"),
            Fault(41, "other bytes under a number that is taken", "the first stays, the second is set aside, an alarm"),
            Fault(55, "values, frames, messages above their limits", "refused with a count; the rest goes on"),
            Fault(56, "frames made to hurt: bombs, deep nesting, false lengths", "bounded memory and time; set aside"),
            Fault(57, "clients made to hurt: very many streams, slow or giant heads, forged numbers", "limits hold; others are unharmed"),
            Fault(59, "values at every edge of every type", "stored bit for bit, or as a typed, counted marker"),
            Fault(60, "a million metric names", "bounded memory; told once"),
            Fault(69, "everyone reconnects at once", "the server stays within its bounds; all come back"),
            Fault(70, "more clients than the server can take", "fair progress; journals grow; nothing is lost"),
            Fault(88, "a frame that crashes or hangs the decoder", "set aside; other frames pass"),
        ),
    ),
    Group(
        "The server and its store",
        (
            Fault(9, "SIGKILL of the server at any point of receive, commit, ack, merge", "what was acked durable is there"),
            Fault(11, "power is cut under the server", "what was acked durable is there"),
            Fault(
                72,
                "the server's disk is full or fails",
                "no ack; clients keep their journals; space heals it",
                "PostgreSQL: a failing fsync, which ends its processes; to the server that is 81",
            ),
            Fault(73, "bits flip in the store, files are cut", "found, named, never silently wrong"),
            Fault(74, "the server's clock jumps", "nothing is ordered by it"),
            Fault(79, "two servers get the same writer", "one wins, the other asks again"),
            Fault(80, "the database goes away during COMMIT", "the outcome is read again, never guessed"),
            Fault(81, "the database is down or fails over", "journals grow; reads say so"),
            Fault(82, "a standby that lags becomes the primary", "as a restored backup"),
            Fault(83, "the database is busy, a transaction fails", "the group is tried again with the same frames"),
            Fault(84, "a reader holds its snapshot for minutes", "ingest does not slow down; the read is cut"),
            Fault(85, "a merge is killed; two merges of one run", "rows neither lost nor doubled"),
            Fault(
                86, "an upgrade of the schema is cut off; an older server on a newer schema", "resumed; or refused, naming both versions"
            ),
            Fault(87, "an upload of a file is cut, its bytes are damaged", "resumed, verified", "the server stores no files yet"),
        ),
    ),
)

FAULTS = {fault.number: fault for group in GROUPS for fault in group.faults}
