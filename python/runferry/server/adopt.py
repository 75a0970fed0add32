"""Follows local journals: a server started beside them shows the runs they hold, those still being written too.

The work (reading segments, sending frames through the write door of this very server) is native; here is only the decision
whether there is anything to follow.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runferry import _native

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
DEFAULT_FOLDER = "runferry"


def default_folders(current_dir: Path) -> list[Path]:
    """The folder in which a client started here puts its journals, if it exists (and is not a checkout of Runferry itself)."""
    folder = current_dir / DEFAULT_FOLDER
    is_package = (folder / "__init__.py").exists()
    return [folder] if folder.is_dir() and not is_package else []


def start_following(paths: Sequence[Path], base_url: str, api_key: str) -> Callable[[], None]:
    """Send what lies and what arrives in these folders to the server at `base_url`, which knows this key.

    Returns:
        A function that stops it; it waits a few seconds at most.
    """
    folders = [str(path.resolve()) for path in paths if path.is_dir()]
    if not folders:
        return _nothing_to_stop
    follower = _native.Follower(folders, base_url, api_key)
    logger.info("following the journals in %s", ", ".join(folders))

    def stop() -> None:
        follower.stop(STOP_TIMEOUT_S)

    return stop


def _nothing_to_stop() -> None:
    """Nothing is followed."""
