"""Weights of MoGe and DINOv2 for the encoder: stand-ins with the public names, at reduced width."""

from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from model import WTDiT, preset, read_encoder, to_released
from model.encoder import ImageEncoder

TRAINED = preset("tiny", width=32, heads=2, encoder={"width": 16, "heads": 2, "depth": 4, "train_projection": True})
FROZEN = preset("tiny", width=32, heads=2, encoder={"width": 16, "heads": 2, "depth": 4, "frozen": True})
OWN = ("final_project.weight", "final_project.bias", "image_mean", "image_std")


def encoder(seed=0, config=TRAINED):
    torch.manual_seed(seed)
    made = ImageEncoder(config.encoder, config.patch, config.width)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return made


def dinov2(state, chunks=1):
    """The names of dinov2_vitl14_pretrain.pth; in chunks of blocks as its training code saves them."""
    depth = TRAINED.encoder.depth
    named = {}
    for name, x in state.items():
        if name in OWN:
            continue
        part, _, rest = name.partition(".")
        if part == "blocks" and chunks > 1:
            block = int(rest.split(".")[0])
            name = f"blocks.{block // (depth // chunks)}.{rest}"
        named[name] = x
    return named


def moge(state):
    """Ruicheng/moge-vitl's model.pt: a configuration, and a model with a backbone and a head of its own."""
    tensors = {"backbone." + name: x for name, x in dinov2(state).items()}
    mean, std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    head = {"head.projects.0.weight": torch.zeros(4, 16, 1, 1), "image_mean": mean, "image_std": std}
    return {"model_config": {"encoder": "dinov2_vitl14", "intermediate_layers": 4}, "model": {**head, **tensors}}


def transformers(state, prefix=""):
    """facebook/dinov2-large's model.safetensors: queries, keys and values apart, other words throughout."""
    plain = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    inside = {
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "attn.proj.weight": "attention.output.dense.weight",
        "attn.proj.bias": "attention.output.dense.bias",
    }
    named = {}
    for name, x in dinov2(state).items():
        if name in plain:
            named[prefix + plain[name]] = x
            continue
        _, block, rest = name.split(".", 2)
        start = f"{prefix}encoder.layer.{block}."
        if rest.startswith("attn.qkv."):
            for part, own in zip(("query", "key", "value"), x.chunk(3), strict=True):
                named[f"{start}attention.attention.{part}.{rest.removeprefix('attn.qkv.')}"] = own.clone()
        else:
            named[start + inside.get(rest, rest)] = x
    return named


SOURCES = {
    "moge": lambda state: moge(state),
    "dinov2": lambda state: dinov2(state),
    "dinov2 in chunks": lambda state: dinov2(state, chunks=2),
    "dinov2 of transformers": lambda state: transformers(state),
    "a classifier of transformers": lambda state: {
        **transformers(state, "dinov2."),
        "classifier.weight": torch.zeros(2, 2),
    },
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_encoder_its_own_numbers(tmp_path, name, suffix):
    there = encoder()
    content = SOURCES[name](there.state_dict())
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    else:
        save_file(content.get("model", content), path)
    tensors = read_encoder(str(path), TRAINED)
    here = encoder(seed=1)
    outcome = here.load_state_dict(tensors, strict=False)
    assert not outcome.unexpected_keys
    assert set(outcome.missing_keys) == set(OWN)  # the projection, which only World Tracing has, and two constants
    rgb = torch.rand(2, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(here._taps(rgb), there._taps(rgb), atol=0, rtol=0)


def test_a_released_model_brings_its_projection_too(tmp_path):
    model = WTDiT(FROZEN)
    torch.save({"ema_state_dict": to_released(model.state_dict())}, tmp_path / "model.pt")
    tensors = read_encoder(str(tmp_path / "model.pt"), FROZEN)
    assert torch.equal(tensors["final_project.weight"], model.encoder.final_project.weight)


def test_half_precision_comes_back_as_float32_and_the_mask_token_may_be_missing(tmp_path):
    state = dinov2(encoder().half().state_dict())
    del state["mask_token"]
    torch.save(state, tmp_path / "half.pth")
    tensors = read_encoder(str(tmp_path / "half.pth"), TRAINED)
    assert {x.dtype for x in tensors.values()} == {torch.float32}
    assert tensors["mask_token"].shape == (1, 16)


def test_the_hub_is_asked_for_the_file_that_is_meant(tmp_path, monkeypatch):
    torch.save(moge(encoder().state_dict()), tmp_path / "model.pt")
    asked = []

    def download(repository, file, local_files_only=False):
        if local_files_only and repository != "me/mine":
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        asked.append((repository, file))
        return str(tmp_path / "model.pt")

    def look(url, timeout):
        looked.append(url)
        if "nobody" in url:
            raise OSError("no connection\nand a long story")
        return SimpleNamespace(size=1000)

    looked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", look)
    for source in ("moge", "hf://me/mine/sub/model.pt", "dinov2"):
        assert "cls_token" in read_encoder(source, TRAINED)
    assert asked == [
        ("Ruicheng/moge-vitl", "model.pt"),
        ("me/mine", "sub/model.pt"),
        ("facebook/dinov2-large", "model.safetensors"),
    ]
    with pytest.raises(OSError, match=r"hf://nobody/x/model\.pt could not be fetched \(no connection\); download") as e:
        read_encoder("hf://nobody/x/model.pt", TRAINED)
    assert "\n" not in str(e.value)
    assert len(asked) == 3, "what cannot be looked at is not downloaded"
    assert [url.split("/")[-4] for url in looked] == ["moge-vitl", "dinov2-large", "x"], (
        "what is cached is not looked at"
    )


class Harm:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.mark.parametrize(
    ("change", "config", "meant"),
    [
        (lambda s: s, FROZEN, "no projection.*would stay random; set model.encoder.train_projection=true"),
        (lambda s: {"weird.weight": torch.zeros(1)}, TRAINED, r"no encoder that is known here.*weird\.weight"),
        (lambda s: {"model": Harm()}, TRAINED, "no weights"),
        (lambda s: [1, 2], TRAINED, "no state dict"),
        (lambda s: {**s, "register_tokens": torch.zeros(1, 4, 16)}, TRAINED, "register tokens"),
        (lambda s: {**s, "pos_embed": torch.zeros(1, 26, 16)}, TRAINED, r"25 positions, a grid of side 5.*is 8; set"),
        (lambda s: {**s, "norm.weight": torch.zeros(8)}, TRAINED, "norm.weight is 8 there and 16 here"),
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("blocks.3.")},
            TRAINED,
            r"blocks\.3\.norm1\.weight is absent there and 16 here",
        ),
        (lambda s: {**s, "blocks.4.norm1.weight": torch.zeros(16)}, TRAINED, r"blocks\.4\.norm1\.weight is there"),
        (
            lambda s: {k: v for k, v in transformers(s).items() if "layer.1.attention.attention.key.weight" not in k},
            TRAINED,
            r"blocks\.1\.attn\.qkv\.weight is absent",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, change, config, meant):
    torch.save(change(dinov2(encoder().state_dict())), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=meant) as error:
        read_encoder(str(tmp_path / "weights.pth"), config)
    assert "\n" not in str(error.value)
    assert "never run" not in capsys.readouterr().out


def test_sources_that_are_none_are_named(tmp_path):
    for source, meant in (("mogee", "neither moge nor dinov2"), ("hf://owner/repo", "hf://OWNER/REPO/FILE")):
        with pytest.raises(ValueError, match=meant):
            read_encoder(source, TRAINED)
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist"):
        read_encoder(str(tmp_path / "gone.pth"), TRAINED)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ValueError, match=r"cut\.safetensors: holds no weights"):
        read_encoder(str(tmp_path / "cut.safetensors"), TRAINED)


def test_a_trained_projection_learns_on_frozen_blocks_and_a_frozen_one_does_not():
    rgb, x_t, t = torch.rand(1, 3, 28, 28), torch.randn(1, 6, 28, 28, 3), torch.tensor([0.5])
    changes = {"width": 16, "heads": 2, "depth": 4, "frozen": True}
    for trained in (True, False):
        config = preset("tiny", width=32, heads=2, encoder={**changes, "train_projection": trained})
        model = WTDiT(config)
        torch.nn.init.normal_(model.head.projection.weight)
        model(rgb, x_t, t).sum().backward()
        reached = {name for name, p in model.encoder.named_parameters() if p.grad is not None}
        assert reached == ({"final_project.weight", "final_project.bias"} if trained else set())
        assert model.encode(rgb).requires_grad == trained
