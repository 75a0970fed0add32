"""What tests of several folders share: a PostgreSQL cluster, made when the first of them asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster."""
    with Cluster() as made:
        yield made


@pytest.fixture
def postgres_database(cluster: Cluster) -> Iterator[str]:
    """The name of an empty database in it."""
    name = cluster.borrow()
    yield name
    cluster.give_back(name)
