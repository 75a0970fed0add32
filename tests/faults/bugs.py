"""Faults of ours that these tests found, each with the test that fails where it comes back."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.marks import Test


@dataclass(frozen=True, slots=True)
class Bug:
    """One entry of the record."""

    symptom: str
    cause: str
    test: Test


BUGS: tuple[Bug, ...] = (
    Bug(
        "a query for hundreds of metrics was answered, or its connection reset, by how the network cut the request",
        "the HTTP parser's 16 KiB are measured only while a request's head is incomplete",
        Test("tests/server/test_read_door.py", "test_a_long_address_is_read_whole_however_the_network_cuts_it"),
    ),
)
