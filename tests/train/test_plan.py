"""The plan of a run is arithmetic that can be done by hand, and is done so here; it needs no data and no GPU."""

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from tests.benchmarks import scale
from train import cli, config
from train.config import Config
from train.plan import gpus, memory, plan, table

WTO = (1_705_047_628, 1_394_385_996)  # weights, trained ones


def wt_o(*changes: str, size: int = 504, accumulation: int = 4) -> Config:
    tree: dict[str, Any] = {"data": {"path": "nowhere", "size": size}, "out": "nowhere", "precision": "bf16"}
    made = config.from_dict(
        {**tree, "accumulation": accumulation, "model": {"preset": "wt_o", "encoder_weights": "moge"}}
    )
    return config.from_dict(config.overridden(config.to_dict(made), changes))


def printed(settings: Config, count: int, gpu: str = "h100") -> str:
    out = io.StringIO()
    table.show(settings, count, gpu, Console(file=out, width=260))
    return out.getvalue()


def test_the_papers_run_by_hand() -> None:
    """64 H100, 2 on each, accumulation 4 (App. B); 85.4 TFLOP a training sample at 504, 1.7B weights, 7776 tokens."""
    made = plan.plan(wt_o(), 64)
    assert (made.counted.all, made.counted.trained) == WTO
    assert made.tokens == 6 * 36**2 == 7776
    assert made.training == pytest.approx(85.4e12, rel=1e-2)
    assert made.forward == pytest.approx(28.1e12 + 0.97e12, rel=1e-2), "decoder and encoder"
    assert (made.on.micro_batch, made.on.shard, made.nodes) == (2, 8, 8)
    assert made.compute == pytest.approx(8 * made.training / (0.4 * 989e12))
    assert made.fits
    assert made.hours == pytest.approx(100_000 * made.step / 3600)
    assert made.samples_per_second == pytest.approx(512 / made.step)
    assert made.checkpoint == 4 * (WTO[0] + 3 * WTO[1])


def test_traffic_by_hand() -> None:
    """One node: all weights are gathered forward, the trained ones backward; gradients are reduced once."""
    made = plan.plan(wt_o(), 8)
    assert made.on.shard == 8
    rate = plan.LINKS * 450e9
    gather = 16 * (WTO[0] + WTO[1]) * 4 * 7 / 8 / 16  # a micro-batch
    assert made.communication.gather == pytest.approx(4 * gather / rate)
    assert made.communication.reduce == pytest.approx(WTO[1] * 4 * 7 / 8 / rate)
    assert made.communication.replicas == made.communication.bytes_network == 0
    assert made.communication.bytes_link == pytest.approx(4 * gather + WTO[1] * 4 * 7 / 8)


def test_traffic_between_groups_by_hand() -> None:
    """Eight groups: each rank sums its eighth of the gradients with seven others, over its own network card."""
    made = plan.plan(wt_o(), 64)
    moved = 2 * 7 / 8 * WTO[1] / 8 * 4
    assert made.communication.bytes_network == pytest.approx(moved)
    assert made.communication.replicas == pytest.approx(moved / (plan.LINKS * 50e9))


def test_one_group_over_all_nodes_sends_more_over_the_network() -> None:
    node, whole = (plan.plan(wt_o(f"parallel.shard={shard}"), 64) for shard in ("node", "all"))
    # 56/64 of the weights are on other nodes, and each rank of a node fetches an eighth of them
    gathered = 4 * (WTO[0] + WTO[1]) * 4 + WTO[1] * 4
    assert whole.communication.bytes_network == pytest.approx(gathered * 56 / 64 / 8)
    assert whole.communication.bytes_network > node.communication.bytes_network
    assert sum(whole.memory.values()) < sum(node.memory.values())


def test_one_gpu_sends_nothing() -> None:
    made = plan.plan(wt_o(accumulation=256), 1)
    assert made.communication.all == made.communication.shown == 0
    assert made.on.shard == 1


@pytest.mark.parametrize("size", [196, 504])
@pytest.mark.parametrize("count", [8, 64, 512])
def test_what_computing_covers_is_not_counted_twice(count: int, size: int) -> None:
    made = plan.plan(wt_o(size=size, accumulation=512 // count if count > 64 else 1), count)
    comm = made.communication
    assert 0 < comm.shown <= comm.all
    assert made.step == pytest.approx(made.compute + comm.shown + made.update)
    assert made.achieved < made.mfu, "what is sent and computed again costs"


def test_fewer_bytes_a_second_are_less_hidden() -> None:
    """The same GPU behind a slower link: more of the traffic shows, computing takes the same."""
    fast, slow = plan.plan(wt_o(size=196), 8, "h100"), plan.plan(wt_o(size=196), 8, "h800")
    assert slow.communication.shown > fast.communication.shown
    assert slow.compute == fast.compute


def test_the_memory_of_a_gpu_is_the_sum_of_its_items() -> None:
    settings = wt_o(accumulation=256)
    made = plan.plan(settings, 1)
    assert sum(made.memory.values()) <= made.usable == pytest.approx(80e9 * 0.94 - 2e9)
    assert made.memory["activations"] == memory.activations(made.config, 504, 1, 2, recomputed=made.recomputed)
    assert 0 < made.recomputed < 48, "one GPU has room for some of the blocks' activations"
    more = plan.plan(settings, 1, "h200")
    assert more.recomputed == 0
    assert more.compute < made.compute, "nothing is computed twice"


def test_what_is_computed_again_is_a_forward_pass_of_those_blocks() -> None:
    every = plan.plan(wt_o("compute.activations=recompute"), 64)
    assert every.recomputed == 48
    assert every.again == pytest.approx(28.07e12, rel=1e-3), "all blocks"
    none = plan.plan(wt_o("compute.activations=keep"), 64)
    assert none.again == none.recomputed == 0
    assert every.training == none.training, "which MFU does not count"
    assert every.achieved < none.achieved


def test_another_accumulation_is_proposed_where_it_helps() -> None:
    short = plan.faster(plan.plan(wt_o(size=196), 64))
    assert short is not None
    assert short.settings.accumulation == 1
    assert plan.faster(short) is None
    too_much = plan.plan(wt_o(accumulation=1), 8)
    assert not too_much.fits
    fitting = plan.faster(too_much)
    assert fitting is not None
    assert fitting.fits
    assert fitting.settings.accumulation > 1


def test_clips_hold_all_of_their_frames() -> None:
    one, clip = (
        plan.plan(wt_o("model.preset=wt_d", f"data.frames={frames}", "data.batch=64", accumulation=1), 64)
        for frames in (1, 16)
    )
    assert clip.tokens == 16 * one.tokens
    assert clip.training > 16 * one.training, "temporal blocks"
    assert clip.frames_per_node == pytest.approx(16 * clip.samples_per_second / 8)


def test_a_measured_peak_or_mfu_is_taken() -> None:
    half = plan.plan(wt_o(), 64, mfu=0.2)
    assert half.compute == pytest.approx(2 * plan.plan(wt_o(), 64).compute)
    assert plan.plan(wt_o("compute.peak=494.5e12"), 64).compute == pytest.approx(half.compute)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ((), {"gpu": "h101"}, "GPU 'h101' is unknown; the nearest that is known is h100"),
        ((), {"gpus": 0}, "--gpus: 0 given; at least 1 is needed"),
        ((), {"mfu": 1.5}, "--mfu: 1.5 given"),
        ((), {"mfu": 0.0}, "--mfu: 0 given"),
        ((), {"gpus": 100}, "data.batch 512 is not a multiple of 100 ranks x accumulation 4"),
        (("data.frames=16",), {}, "data.frames: 16, but wt_o has no temporal blocks"),
        (("model.encoder_weights=null",), {}, "model.start: not set, and model.encoder_weights neither"),
        (("data.size=500",), {}, "data.size: 500 is not a multiple of the model's patch, 14"),
        (("parallel.shard=3",), {"gpus": 8}, "parallel.shard: 3 does not divide 8 ranks"),
        (("model.preset=wt_x",), {}, "model preset 'wt_x' is unknown"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(
    changes: tuple[str, ...], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")) as error:
        plan.plan(wt_o(*changes), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [{"gpus": 3}, {"gpu": "a100"}, {"mfu": 0.5}])
def test_options_of_a_dry_run_are_refused_by_a_training(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^--{next(iter(given))} is of --dry-run; .*torchrun"):
        cli.train("tiny", [], **given)


def test_a_dry_run_ends_with_1_where_the_run_does_not_fit() -> None:
    cli.train("wt_o", ["accumulation=8"], dry_run=True, gpus=8)
    with pytest.raises(typer.Exit) as ended:
        cli.train("wt_o", [], dry_run=True)
    assert ended.value.exit_code == 1


def test_every_number_says_where_it_comes_from() -> None:
    text = printed(wt_o(), 64)
    assert "wt_o at 504x504, on 64 x h100 on 8 nodes" in text
    assert "1,705.05M" in text
    assert "1,394.39M" in text
    assert "7,776" in text
    assert "85.33 TFLOP" in text
    for source in ("exact", "counted", "measured", "assumed"):
        assert source in text
    for line in text.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            assert len(line.split()) > 2, f"{line}: a number and its source"


def test_what_does_not_fit_says_so_and_what_to_do() -> None:
    text = printed(wt_o(accumulation=1), 8)
    assert "DOES NOT FIT" in text
    assert "accumulation=32 fits: fewer samples" in text
    assert "give compute.activations less" in printed(wt_o("compute.activations=keep", accumulation=1), 64)
    for accumulation in (1, 512):
        hopeless = printed(wt_o(accumulation=accumulation), 1, "rtx4090")
        assert "no accumulation fits: share the weights out" in hopeless


def test_small_runs_are_told_in_small_numbers() -> None:
    text = " ".join(printed(config.load("tiny"), 1).split())
    assert "0.00" not in text
    assert "seconds 0.115 from the step" in text
    assert "GPU hours < 0.1 of h100" in text
    assert "exact; 11,200 samples" in text
    assert "the peak of bf16: precision fp32 takes several times as long" in text
    assert "the peak of bf16" not in printed(wt_o(), 64)


def test_rates_say_what_they_were_measured_on() -> None:
    assert "measured: rendered objects of this size" in printed(wt_o(), 64)
    clips = printed(config.load("wt_d"), 64)
    assert "frames of rendered objects" in clips
    assert "rooms and photographs are larger" in printed(config.load("wt_s"), 64)


def test_every_known_gpu_has_a_plan() -> None:
    for gpu, count in itertools.product(gpus.KNOWN, (1, 16)):
        made = plan.plan(wt_o(accumulation=32), count, gpu.name)
        assert made.step > 0
        assert sum(made.memory.values()) > 0


def test_data_rates_are_those_that_were_measured() -> None:
    """An H100 at 45 % takes 5.2 samples a second at 504: 0.09 of a core, 0.33 MB; between sizes it goes by pixels."""
    made = plan.plan(wt_o(accumulation=256), 1, mfu=0.45)
    rate, size = plan.MEASURED[504]
    assert made.cores == pytest.approx(made.samples_per_second / rate)
    assert made.read == pytest.approx(made.samples_per_second * size)
    low, middle, high = (plan._by_pixels(n, {196: 1.0, 504: 3.0}) for n in (196, 382, 504))
    assert (low, high) == (1.0, 3.0)
    assert middle == pytest.approx(2.0, rel=0.01)


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    """docs/scale.md is made by tests/benchmarks/scale.py; run it again when this fails."""
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    for part in scale.tables().split("\n\n"):
        assert part in page, "python tests/benchmarks/scale.py prints other tables than docs/scale.md has"
