"""The files under cluster/files/: valid for those who read them, without a cloud; and the Slurm script really run."""

import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.conftest import contents

ROOT = Path(__file__).parents[2]
FILES = ROOT / "cluster" / "files"
KUBERAY = FILES / "kuberay"


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_launcher_of_ray_accepts_the_files_for_clouds(cloud: str) -> None:
    config = prepare_config(loaded(FILES / f"{cloud}.yaml"))
    validate_config(config)  # raises by Ray's own schema
    types = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}  # nothing renders beside the driver
    assert types["gpu"]["resources"]["GPU"] == 1
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0 < types[name]["max_workers"] <= config["max_workers"]


def test_workers_in_clouds_are_spot_machines_and_heads_are_not() -> None:
    aws, gcp = (loaded(FILES / f"{cloud}.yaml")["available_node_types"] for cloud in ("aws", "gcp"))
    for name, spot in (("head", False), ("cpu", True), ("gpu", True)):
        assert (aws[name]["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}) is spot
        scheduling = gcp[name]["node_config"].get("scheduling", [{}])
        assert (scheduling[0].get("provisioningModel") == "SPOT") is spot
        assert aws[name]["node_config"]["IamInstanceProfile"]  # workers write the bucket themselves


def test_what_they_install_is_the_ray_that_is_pinned() -> None:
    pinned = re.search(r"^ray(?:\[\w+\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    for cloud in ("aws", "gcp"):
        assert f"'ray[default]=={pinned[1]}'" in (FILES / f"{cloud}.yaml").read_text()
    assert loaded(KUBERAY / "cluster.yaml")["spec"]["rayVersion"] == pinned[1]


def test_the_cluster_of_a_job_is_that_of_cluster_yaml() -> None:
    """What KubeRay's definitions demand beyond this was checked with them once; they are too long to keep here."""
    cluster, job = loaded(KUBERAY / "cluster.yaml"), loaded(KUBERAY / "job.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert job["spec"]["entrypoint"].startswith("worldtrace render ")


def test_pods_have_what_ray_needs() -> None:
    spec = loaded(KUBERAY / "cluster.yaml")["spec"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    account, secret = list(yaml.safe_load_all((KUBERAY / "credentials.yaml").read_text()))
    for group in (spec["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests == limits  # Ray counts cores and GPUs by the limits
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"], "optional": True}}]
        (volume,) = pod["volumes"]  # shared memory counts towards the memory of the container
        assert volume["emptyDir"]["medium"] == "Memory"
        assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) < int(limits["memory"].removesuffix("Gi"))
        assert {"name": volume["name"], "mountPath": "/dev/shm"} in container["volumeMounts"]
    for name, group in groups.items():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        gpus = group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert gpus == (name == "gpu")
        assert any(t["key"] == "worldtrace" for t in group["template"]["spec"]["tolerations"])


def test_no_file_holds_a_key() -> None:
    for path in FILES.rglob("*"):
        if path.is_file():
            assert not re.search(r"AKIA|BEGIN .*PRIVATE|://[^/\s]+:[^/\s]+@", path.read_text()), path


def test_the_dockerfile_copies_what_there_is() -> None:
    text = (FILES / "Dockerfile").read_text()
    extras = re.search(r"/src\[([\w,]+)\]", text)
    assert extras
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
    assert set(extras[1].split(",")) <= declared
    for name in re.findall(r"/src/([\w.]+)", text):
        assert (ROOT / name).exists(), name


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(FILES / "slurm.sbatch")], check=True)
    directives = re.findall(r"^#SBATCH --(\S+)", (FILES / "slurm.sbatch").read_text(), re.M)
    assert {"requeue", "signal=B:USR1@120", "open-mode=append"} <= set(directives)


# Slurm's commands as far as the script uses them: every node is this machine.
STUBS = {
    "srun": """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -w ]] && { node=$2; shift; }; shift; done
echo "srun $node $*" >> "$STUB_LOG"
export SLURMD_NODENAME=$node
[[ $1 == hostname ]] && { echo "127.0.0.1 ::1"; exit; }
exec "$@"
""",
    "scontrol": """#!/bin/bash
echo "scontrol $*" >> "$STUB_LOG"
[[ $1 == show ]] && printf 'node-a\\nnode-b\\n'
exit 0
""",
}
SOURCE = "procedural:objects?count={count} --views 2 --size 64 --backend cpu --shard-views 4 --set samples=1"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Slurm job of two nodes of one core."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, text in STUBS.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(stat.S_IRWXU)
    name = hashlib.sha256(str(tmp_path).encode()).digest()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))}
    values = {
        **clean,
        "PATH": f"{stubs}:{clean['PATH']}",
        "PYTHONPATH": str(ROOT),
        "STUB_LOG": str(tmp_path / "slurm.log"),
        "SLURM_JOB_ID": str(int.from_bytes(name[:4], "big")),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_CPUS_PER_TASK": "1",
        "WORLDTRACE_VENV": str(Path(sys.executable).parent.parent),
        "WORLDTRACE_OUT": str(tmp_path / "dataset"),
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    }
    yield values
    shutil.rmtree(f"/tmp/ray-{values['SLURM_JOB_ID']}", ignore_errors=True)  # the logs, which a node keeps


def script(environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    command = ["bash", str(FILES / "slurm.sbatch")]
    return subprocess.Popen(command, env=environment, stdout=log.open("wb"), stderr=subprocess.STDOUT)


def left_over(job: str) -> list[str]:
    """Command lines of processes that belong to the Ray of this Slurm job."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if f"/tmp/ray-{job}" in line]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_preempted_slurm_job_ends_in_the_dataset_of_an_undisturbed_one(slurm: dict[str, str], tmp_path: Path) -> None:
    count = 24
    job, log, out = slurm["SLURM_JOB_ID"], tmp_path / "job.log", tmp_path / "dataset"
    environment = {**slurm, "WORLDTRACE_RENDER": SOURCE.format(count=count)}

    first = script(environment, log)
    deadline = time.monotonic() + 120
    while not (committed := list((out / "shards").glob("*.tar"))):
        assert first.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 0, log.read_text()
    calls = Path(slurm["STUB_LOG"]).read_text()
    assert f"scontrol requeue {job}" in calls
    assert not left_over(job)
    assert "2 of 2 nodes are in Ray" in log.read_text()
    assert len(committed) < count // 2  # it was really cut short
    assert re.search(r"srun node-b .*--address=127.0.0.1", calls)

    assert script(environment, log).wait(200) == 0, log.read_text()
    assert not left_over(job)

    alone = tmp_path / "alone"
    command = [sys.executable, str(ROOT / "worldtrace.py"), "render", *SOURCE.format(count=count).split()]
    subprocess.run([*command, "--out", str(alone), "--workers", "2"], env=slurm, check=True, capture_output=True)
    assert contents(out) == contents(alone)
    assert not ray.is_initialized()  # nothing of this ran in this process
