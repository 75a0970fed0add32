"""A process whose wall clock can be set while it runs: a library laid under it that adds so many seconds to what the system says.

Monotonic clocks stay true, as they do when an administrator or NTP sets the time.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead_s;

__attribute__((constructor)) static void find(void) {
    int file = open(getenv("WALL_CLOCK_AHEAD"), O_RDONLY);
    void *found = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    ahead_s = found == MAP_FAILED ? NULL : found;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (place) *place = exact.tv_sec;
    return exact.tv_sec;
}
"""


class WallClock:
    """The clock of the processes whose command begins with `prefix`."""

    def __init__(self, folder: Path) -> None:
        """Build the library in this folder; skips the test where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("not run: needs a C compiler")
        source, library, ahead = folder / "clock.c", folder / "clock.so", folder / "ahead"
        source.write_text(SOURCE, encoding="ascii")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True, timeout=60)
        ahead.write_bytes(bytes(mmap.PAGESIZE))
        with ahead.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 0)
        self.prefix = ("env", f"LD_PRELOAD={library}", f"WALL_CLOCK_AHEAD={ahead}")

    def set(self, ahead_s: int) -> None:
        """From now on the clock is so many seconds ahead of the true time, or behind it."""
        self._ahead[:8] = struct.pack("<q", ahead_s)
