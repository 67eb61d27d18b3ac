"""The shipped configs say what the paper says (App. B and C), and what it leaves open says so."""

import re

import pytest

from shards.order import mixture
from train import config
from train.config import SHIPPED
from train.plan import plan

PAPERS = ("wt_o", "wt_o_504", "wt_s", "wt_s_mix", "wt_d")
GPUS = {"tiny": 1, "small": 1}  # the paper's models: 64
REAL = ("scannet", "megadepth", "blendedmvs", "arkitscenes", "argoverse2", "waymo")
SYNTHETIC = ("hypersim", "taskonomy", "aria_synthetic", "parallel_domain", "tartanair")


def test_these_are_shipped() -> None:
    assert set(config.shipped()) == {*PAPERS, "small", "tiny"}


@pytest.mark.parametrize("name", [*PAPERS, "small", "tiny"])
def test_a_shipped_config_can_be_planned_and_fits(name: str) -> None:
    """On the paper's 64 H100, or on one GPU, with no data and no weights at hand."""
    made = plan.plan(config.load(name), GPUS.get(name, 64))
    assert made.fits
    assert made.hours > 0
    other = plan.faster(made)
    assert other is None or other.step > 0.9 * made.step, "the shipped accumulation is about the best one"


@pytest.mark.parametrize("name", PAPERS)
def test_the_optimizer_is_that_of_appendix_b(name: str) -> None:
    c = config.load(name)
    o = c.optimizer
    assert (o.lr, o.min_lr, o.warmup, o.weight_decay, o.betas) == (1e-4, 1e-5, 2000, 0.01, (0.9, 0.999))
    assert (o.clip, o.spike, c.ema, c.objective.lambda_mono) == (1.0, 4.0, 0.9995, 0.1)
    assert c.precision == "bf16"
    assert c.augment.enabled


@pytest.mark.parametrize(
    ("name", "preset", "size", "steps", "frames", "normalisation"),
    [
        ("wt_o", "wt_o", 196, 100_000, 1, "zscore"),
        ("wt_o_504", "wt_o", 504, 100_000, 1, "auto"),
        ("wt_s", "wt_s", 504, 100_000, 1, "log_median"),
        ("wt_s_mix", "wt_s", 504, 50_000, 1, "log_median"),
        ("wt_d", "wt_d", 504, 50_000, 16, "auto"),
    ],
)
def test_stages_sizes_and_steps_are_the_papers(
    name: str, preset: str, size: int, steps: int, frames: int, normalisation: str
) -> None:
    c = config.load(name)
    assert (c.model.preset, c.data.size, c.steps, c.data.frames) == (preset, size, steps, frames)
    assert c.model.normalisation == normalisation
    assert c.data.batch == (512 if frames == 1 else 64)


def test_the_main_run_is_64_gpus_of_2_times_4() -> None:
    made = plan.plan(config.load("wt_o_504"), 64)
    assert (made.on.micro_batch, made.settings.accumulation) == (2, 4)


def test_about_1_4_of_1_7_billion_weights_are_trained() -> None:
    """App. B, the projection of the encoder's features among them; facts: 1394.39M without it, in the release."""
    counted = plan.plan(config.load("wt_o"), 64).counted
    projection = 4096 * 1536 + 1536
    assert counted.all == 1_705_047_628
    assert counted.trained == 1_394_385_996 + projection


def test_each_stage_starts_from_the_one_before() -> None:
    """The first ones from MoGe's encoder, whose projection they train; the others from a run's folder."""
    for name in ("wt_o", "wt_s"):
        c = config.load(name)
        assert (c.model.start, c.model.encoder_weights) == (None, "moge")
        assert c.objective.shared_times_from == "stable"
    for name, before in (("wt_o_504", "wt_o"), ("wt_s_mix", "wt_s"), ("wt_d", "wt_o_504")):
        c = config.load(name)
        assert (c.model.start, c.model.encoder_weights) == (config.load(before).out, None)
        assert c.objective.shared_times_from == 0
    for name in PAPERS:
        assert config.load(name).model.overrides == {"encoder": {"train_projection": True}}


def test_the_mixture_is_that_of_appendix_c() -> None:
    """0.6 of 3D assets, 0.4 of RGBD in proportion to sqrt(rows), real photographs 1.5 times."""
    mixed = config.load("wt_s_mix").data.mixed
    sources = mixture.leaves(mixed)
    assert [s.path for s in sources] == ["out/scenes", *(f"out/{name}" for name in (*REAL, *SYNTHETIC))]
    rows = [100_000 + 9_000 * i for i in range(len(sources))]
    shares = dict(zip((s.path for s in sources), mixture.shares(mixed, rows)))
    weights = {
        s.path: rows[i] ** 0.5 * (1.5 if s.path.removeprefix("out/") in REAL else 1) for i, s in enumerate(sources) if i
    }
    assert shares.pop("out/scenes") == pytest.approx(0.6)
    for path, share in shares.items():
        assert share == pytest.approx(0.4 * weights[path] / sum(weights.values())), path


def test_the_demo_keeps_its_three_minutes() -> None:
    """1400 steps of 8 small images, two cores: what `make demo` and its 8 minutes rest on."""
    c = config.load("tiny")
    made = plan.plan(c)
    assert (c.data.size, c.data.batch, c.steps, c.precision, c.augment.enabled) == (112, 8, 1400, "fp32", False)
    assert c.steps * c.data.batch * made.training < 20e12, "three minutes at 0.1 TFLOP/s"


@pytest.mark.parametrize("name", [*PAPERS, "small", "tiny"])
def test_beside_each_number_stands_what_the_paper_says(name: str) -> None:
    lines = (SHIPPED / f"{name}.yaml").read_text().splitlines()
    ours = ("path", "workers", "out", "precision", "log", "evaluation", "checkpoint")  # the paper has no such thing
    for line in lines:
        key, _, value = line.partition(":")
        if "#" in key or not value.split("#")[0].strip() or ("#" not in line and key.strip() in ours):
            continue
        assert re.search(r"# .*(paper|open|that of)", line), f"{name}: {key.strip()} stands there alone"
