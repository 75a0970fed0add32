"""What tests of several folders share: a PostgreSQL cluster, made when the first of them asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; each test makes a database of its own in it."""
    with Cluster() as made:
        yield made
