"""Fail points are for tests alone: what ships holds no trace of them."""

from __future__ import annotations

from pathlib import Path

from runferry import _native

from tests.support import failpoints


def test_the_module_that_ships_holds_no_fail_point() -> None:
    failpoints.package()  # skips without the other module, which shows that the names are looked for rightly
    ships, tested = Path(_native.__file__).read_bytes(), failpoints.MODULE.read_bytes()
    named = {site.encode() for site in failpoints.sites()} | {b"RUNFERRY_FAILPOINTS"}

    assert len(named) > 50
    assert {name for name in named if name not in tested} == set()
    assert {name for name in named if name in ships} == set()
