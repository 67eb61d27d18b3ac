"""Real Ray nodes on this machine, `ray job submit`, and being told to stop."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.connection import _mismatch
from cluster.dataset import Means, render_dataset
from tests.benchmarks import chaos
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import COUNT, contents
from tests.cluster.nodes import ENVIRONMENT, RAY, ROOT, Nodes, until
from tests.cluster.test_kill import driver


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_stop_leaves_in_order(
    how: signal.Signals, undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    """A spot node that is taken back and `ray job stop` send SIGTERM, and SIGKILL some seconds after."""
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    with driver(out, scratch, "hang") as process:
        assert until(lambda: any((out / "units").glob("0*.json")), 60), "no unit was committed"
        process.send_signal(how)
        assert until(lambda: process.poll() is not None, 30)
        assert process.returncode == 1
        assert process.stderr is not None
        assert process.stderr.read().decode().strip().endswith("stopped")
    left = [path.name for path in out.rglob("*") if path.name.startswith(".")]
    assert left == []
    render_dataset([source], out, SETTINGS, shard_views=6, means=Means(workers=2))
    assert contents(out) == contents(undisturbed)


def test_other_versions_on_the_cluster_are_told_in_one_sentence() -> None:
    """Ray's own words for it (ray._private.utils.check_version_info)."""
    said = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.10.1\n"
        "This process on node 10.0.0.1:6379 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    sentence = _mismatch("10.0.0.1:6379", said)
    assert "10.0.0.1:6379 runs Ray 2.40.0 on Python 3.10.1, and this is Ray 2.60.0 on Python 3.11.7" in sentence
    assert "\n" not in sentence


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_on_a_real_cluster_change_no_byte(tmp_path: Path) -> None:
    """`python -m tests.benchmarks.chaos` has 20 rounds."""
    chaos.run(4, 2, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_job_submit_renders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Nodes(1, cpus=2, dashboard=True) as nodes:
        environment = {**os.environ, **ENVIRONMENT, "RAY_ADDRESS": nodes.dashboard_address}
        entry = [sys.executable, "-m", "worldtrace", "render", "procedural:objects?count=2", "--views", "1"]
        entry += ["--size", "32", "--out", str(out)]
        assert until(nodes.dashboard_answers, 60)
        done = subprocess.run(
            [str(RAY), "job", "submit", "--", *entry],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "dataset.json").read_text())["complete"]


def test_silence_and_a_missing_token_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself goes on asking for ten minutes."""
    import grpc

    from cluster.connection import _refuse_silence

    with pytest.raises(ValueError, match=r"no Ray answers at 127\.0\.0\.1:1: start one"):
        _refuse_silence("127.0.0.1:1")

    class Strict(grpc.GenericRpcHandler):
        def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            assert call.method == "/ray.rpc.NodeInfoGcsService/GetClusterId"
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
            )

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Strict(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        with pytest.raises(ValueError, match=r"asks for a token: set RAY_AUTH_MODE=token"):
            _refuse_silence(f"127.0.0.1:{port}")
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        _refuse_silence(f"127.0.0.1:{port}")  # Ray will show it
    finally:
        server.stop(None)
