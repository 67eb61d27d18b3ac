"""Ray Train on two workers: the run that torchrun would have made, through the loss of a worker, bit for bit."""

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from rich.console import Console

from cluster import connection, training
from cluster.board import Board, Lines
from cluster.training import Workers, settled, train_on_cluster
from tests.cluster.nodes import until
from tests.train import ranks
from tests.train.conftest import Settings, dataset, settings  # noqa: F401  (fixtures)
from tests.train.runs import final, losses, same_weights
from train.loop import train
from train.reports import log

TWO = Workers(2, gpu=False)
STEPS = 60


@pytest.fixture(scope="module", autouse=True)
def own_ray() -> Iterator[None]:
    """Of this file alone, for it takes every CPU: what other files have left in theirs is none of its business."""
    ray.shutdown()
    with connection.connected("local", workers=2):
        yield


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the workers of the test before have given their CPUs back; and let Ray Train be quick, or give up."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    monkeypatch.setattr(training, "PLACEMENTS", 0)
    if not until(lambda: free_cpus() >= 2, 60):  # that test has failed, and is to be the only one
        ray.shutdown()
        connection.connected("local", workers=2).__enter__()


def meanwhile(out: str, step: int, do: Callable[[], None]) -> threading.Thread:
    """Do something as soon as the run has reported `step`."""

    def watch() -> None:
        if until(lambda: any(line["step"] >= step for line in log.read(Path(out))), 150):
            do()
        else:
            os.kill(os.getpid(), signal.SIGTERM)  # ends the run, and the test fails

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def workers() -> list[int]:
    """Processes of Ray Train's workers that descend from this one; their data workers too, which bear their name."""
    parents, named = {}, []
    for process in Path("/proc").iterdir():
        try:
            number = int(process.name)
            parents[number] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if b"ray::RayTrainWorker" in (process / "cmdline").read_bytes():
                named.append(number)
        except (OSError, ValueError):
            continue
    return [number for number in named if os.getpid() in ancestors(number, parents)]


def ancestors(number: int, parents: dict[int, int]) -> list[int]:
    found = []
    while (number := parents.get(number, 0)) > 1:
        found.append(number)
    return found


def kill_one() -> None:
    os.kill(max(workers()), signal.SIGKILL)


def test_a_killed_worker_costs_steps_and_not_a_bit(settings: Settings) -> None:  # noqa: F811
    """Against two ranks that were started without Ray, and left in peace."""
    c = settings(steps=STEPS, checkpoint__every=15, augment__enabled=True, parallel__timeout=60.0)
    said: list[str] = []
    killer = meanwhile(c.out, 25, kill_one)
    ended = train_on_cluster(c, TWO, "local", said.append)
    killer.join()
    assert ended.stopped_by is None
    assert ended.line.startswith(f"done: step {STEPS};")
    assert f"{c.out} starts" in said[0]
    assert "over 2 ranks" in said[0]
    again = next(i for i, line in enumerate(said) if line.startswith("attempt 2: all workers start again"))
    assert said[again - 1].startswith("lost: rank ")
    step = int(said[again + 1].split("goes on at step ")[1].split(":")[0])
    assert step % 15 == 0
    assert step >= 15
    assert sorted(p.name for p in Path(c.out).iterdir()) == [
        "checkpoints",
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "training.png",
    ]
    whole = settings(steps=STEPS, out=f"{c.out}-whole", augment__enabled=True)
    assert ranks.run(whole, 2) == [0, 0]
    assert losses(c.out) == losses(whole.out)
    assert same_weights(c.out, whole.out)


@pytest.mark.slow  # with the next one: ten seconds each until Ray Train has started two workers
def test_a_signal_to_the_driver_saves_and_ends_the_workers(settings: Settings) -> None:  # noqa: F811
    c = settings(steps=100_000)
    said: list[str] = []
    meanwhile(c.out, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    ended = train_on_cluster(c, TWO, "local", said.append)
    assert ended.stopped_by == signal.SIGTERM
    step = final(c.out).step
    assert step >= 5
    assert ended.line.startswith(f"SIGTERM: saved step {step} of 100000")
    assert any(line.startswith("SIGTERM: the workers save") for line in said)
    assert not any("attempt 2" in line for line in said)


def test_what_no_attempt_can_mend_is_said_once_and_not_tried_again(settings: Settings) -> None:  # noqa: F811
    train(settings(steps=1), Console(file=io.StringIO()))
    said: list[str] = []
    with pytest.raises(ValueError, match=r"another config \(seed: 0 -> 1\)") as error:
        train_on_cluster(settings(steps=2, seed=1), Workers(2, gpu=False, max_failures=50), "local", said.append)
    assert "\n" not in str(error.value)
    assert said == []


@pytest.mark.slow
def test_a_run_that_fails_too_often_ends_in_one_sentence(settings: Settings) -> None:  # noqa: F811
    c = settings(steps=100_000)
    meanwhile(c.out, 5, kill_one)
    with pytest.raises(ValueError, match=r"ended after 0 restarts \(--max-failures\).*goes on from") as error:
        train_on_cluster(c, Workers(2, gpu=False, max_failures=0), "local", lambda _: None)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_rank_that_hangs_costs_an_attempt_and_is_named(settings: Settings) -> None:  # noqa: F811
    c = settings(steps=STEPS, checkpoint__every=15, parallel__timeout=4.0)
    said: list[str] = []
    freezer = meanwhile(c.out, 25, lambda: os.kill(max(workers()), signal.SIGSTOP))
    ended = train_on_cluster(c, TWO, "local", said.append)
    freezer.join()
    assert ended.line.startswith(f"done: step {STEPS};")
    (lost,) = [line for line in said if line.startswith("lost: ")]
    assert f" of 2, on {socket.gethostname()}, has not moved for " in lost, lost
    assert sum(line.startswith("attempt 2: ") for line in said) == 1


def test_workers_that_find_no_room_say_so_and_do_not_wait_for_ever(
    settings: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Neighbour:
        def here(self) -> None:
            pass

    neighbour = ray.remote(num_cpus=1)(Neighbour).remote()
    ray.get(neighbour.here.remote())
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    monkeypatch.setattr(training, "PATIENCE", 2.0)
    said: list[str] = []
    with pytest.raises(ValueError, match=r"--workers 2: no room for them") as error:
        train_on_cluster(settings(steps=1), TWO, "local", said.append)
    ray.kill(neighbour)
    assert "\n" not in str(error.value)
    line = said[0]
    assert line.startswith("waiting for room since ")
    assert "2 workers are to be placed (each takes 1 CPU), and 1 of 2 CPUs are free" in line
    states = [group["state"] for group in ray.util.placement_group_table().values()]
    assert set(states) <= {"REMOVED"}, "nothing is left to take room when there is some"


@pytest.mark.parametrize(
    ("asked", "changes", "reason"),
    [
        (Workers(4, gpu=False), {}, r"--workers 4: only 2 can be placed \(each takes 1 CPU; .* 2 CPUs .*--workers 2"),
        (Workers(1, gpu=False, cpus=3), {}, r"--workers 1: only 0 can be placed \(each takes 3 CPUs"),
        (Workers(2, gpu=True), {"device": "auto"}, "no GPU for a worker"),
        (Workers(2), {"device": "cuda"}, "no GPU for a worker"),
        (Workers(2, gpu=True), {"device": "cpu"}, "device: cpu in the config, but --gpu"),
        (Workers(2, gpu=False), {"device": "cuda"}, "device: cuda in the config, but --cpu"),
        (Workers(3, gpu=False), {}, "data.batch 4 is not a multiple of 3 ranks"),
    ],
)
def test_what_the_cluster_cannot_give_is_refused_at_once(
    settings: Settings,  # noqa: F811
    asked: Workers,
    changes: dict,
    reason: str,
) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=reason) as error:
        train_on_cluster(settings(**changes), asked, "local", lambda _: None)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 5


def test_workers_get_absolute_paths_and_no_copy_of_the_working_directory(
    settings: Settings,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    c = settled(
        settings(out="run", data__path=[{"path": "data"}, {"path": "s3://bucket/data"}], model__start="model.pt")
    )
    assert c.out == str(tmp_path / "run")
    assert [source.path for source in c.data.sources] == [str(tmp_path / "data"), "s3://bucket/data"]
    assert c.model.start == str(tmp_path / "model.pt")
    for start in ("r75b", "hf://haoz19/object-model-6layer"):
        assert settled(settings(out="run", model__start=start)).model.start == start
    (tmp_path / "runtime_resources").mkdir()
    monkeypatch.chdir(tmp_path / "runtime_resources")
    with pytest.raises(ValueError, match="give an absolute path"):
        settled(settings(out="run"))


def test_lines_are_handed_on_whole() -> None:
    class Actor:
        lines: list[str] = []  # noqa: RUF012

        @property
        def say(self) -> "Actor":
            return self

        def remote(self, line: str) -> None:
            self.lines.append(line)

    file = Lines(Actor())
    print("one\ntwo", file=file)
    print("thr", end="", file=file)
    assert Actor.lines == ["one", "two"]
    print("ee", file=file)
    assert Actor.lines == ["one", "two", "three"]


def test_the_first_refusal_stands() -> None:
    board = Board()
    assert board.begin() is None
    board.refuse("a")
    board.refuse("b")
    assert board.refused_by() == 2
    assert board.begin() == board.refusal() == "a"
    assert board.read() == []


def test_a_rank_that_hangs_is_what_was_lost_of_its_attempt() -> None:
    board = Board()
    board.begin()
    assert board.runs()
    board.hung("rank 1 of 2 has not moved")
    board.hung("rank 1 of 2 has not moved")
    board.lost("rank 0: The actor is dead")
    assert not board.runs()
    board.begin()
    board.lost("rank 0: The actor is dead")
    assert [line for line in board.read() if line.startswith("lost")] == [
        "lost: rank 1 of 2 has not moved",
        "lost: rank 0: The actor is dead",
    ]


def test_the_cause_is_the_rank_that_was_lost_not_the_one_that_lost_it() -> None:
    lost = "ConnectionError: rank 0 of 2, on a: rank 1 of 2, on b, has ended with an error: no disk; the same command"
    assert training._cause({0: RuntimeError(lost)}) == "rank 1 of 2, on b, has ended with an error: no disk"
    assert training._cause({0: RuntimeError(lost), 1: OSError("no disk")}) == "rank 1: no disk"
