"""A wall clock that a test can set, for one process: a preloaded library that moves CLOCK_REALTIME by what a file says.

    clock = WallClock(tmp_path)
    with Trainer(code, tmp_path, LD_PRELOAD=clock.library ...)

Only the wall clock moves, as when an administrator or NTP sets it: CLOCK_MONOTONIC and CLOCK_BOOTTIME go on.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile int64_t *offset_s;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    real = dlsym(RTLD_NEXT, "clock_gettime");
    int fd = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) offset_s = page;
    close(fd);
}
int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    if (offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset_s;
    return status;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    int status = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return status;
}
time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}
"""


class WallClock:
    """Of the programs that are started behind `prefix`."""

    def __init__(self, folder: Path) -> None:
        """Build the library in `folder`; the test is not run where there is no compiler."""
        if shutil.which("gcc") is None:
            pytest.skip("not run: no gcc to build a clock that can be set")
        folder.mkdir()
        source, library, self._offset = folder / "clock.c", folder / "clock.so", folder / "offset"
        source.write_text(SOURCE)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl"], check=True)  # noqa: S607
        self._offset.write_bytes(struct.pack("=q", 0))
        self.prefix = ["env", f"LD_PRELOAD={library}", f"WALL_CLOCK_OFFSET={self._offset}"]

    def set(self, offset_s: int) -> None:
        """So many seconds ahead of the machine's clock, from now on."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=q", offset_s))
