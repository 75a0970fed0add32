"""What a training carries about with it for being online: next to nothing beyond the native module."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.keys import add_key
from tests.support.servers import RunningServer
from tests.support.trainers import client_environment

if TYPE_CHECKING:
    from pathlib import Path

TRAINING = """
import sys
import runferry
with runferry.init(project="light", id="r") as run:
    run.log({"loss": 0.5})
    is_acked = run.flush(acked=True, timeout=60)
print(is_acked, sorted(sys.modules.keys() & {"ssl", "http.client", "email", "_hashlib", "asyncio", "socket"}))
"""


def test_an_online_run_with_a_key_imports_neither_tls_nor_http_nor_a_hash_library(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = add_key(data, "trainer")
    with RunningServer(data, "--require-keys") as server:
        environment = client_environment(tmp_path, base_url=server.url, api_key=key)

        ended = subprocess.run(
            [sys.executable, "-c", TRAINING], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["True []"]), ended.stderr
