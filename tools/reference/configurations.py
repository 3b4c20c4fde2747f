"""Sizes of the models, by name."""

from dataclasses import dataclass, replace

ARCHITECTURES = (
    "albef-pretrain", "albef-retrieval", "albef-vqa", "albef-nlvr2", "albef-ve",
    "mplug-vqa", "mplug-caption", "mplug-retrieval", "mplug-grounding",
)


@dataclass(frozen=True)
class ClipText:
    """CLIP's own text tower, which mPLUG checkpoints carry and never run."""

    width: int = 512
    layers: int = 12
    vocabulary: int = 49408
    context: int = 77


@dataclass(frozen=True)
class Config:
    """Everything that shapes a model. The defaults are the released base size."""

    architecture: str
    image_size: int = 384
    patch: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_ffn: int = 3072
    text_width: int = 768
    text_heads: int = 12
    text_ffn: int = 3072
    text_layers: int = 6
    fusion_layers: int = 6
    """Fusion layers that run (NLVR2: pairs of layers, one per image)."""
    stored_fusion_layers: int = 12
    """mPLUG stores more fusion layers than it runs: the last `fusion_layers` run."""
    stride_layer: int = 3
    decoder_layers: int = 6
    vocabulary: int = 30522
    positions: int = 512
    embed_dim: int = 256
    queue: int = 65536
    momentum: bool = True
    """Whether the released file carries momentum twins."""
    prefix_id: int = 344
    targets: int = 337
    """Grounding: start token, and the number of coordinate tokens that follow it."""
    answers: int = 3
    """Classes of albef-ve: three as released."""
    start_id: int = 101
    end_id: int = 102
    clip_text: ClipText = ClipText()
    boolean_masks: bool = False
    """Whether the text's attention is PyTorch's own, with masks of Booleans."""

    def __post_init__(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture}: expected one of {', '.join(ARCHITECTURES)}")
        if self.image_size % self.patch:
            raise ValueError(f"image size {self.image_size} is not a multiple of the patch size {self.patch}")
        for tower in ("vision", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(f"{tower} width {width} is not a multiple of its {heads} heads")

    @property
    def family(self) -> str:
        return self.architecture.split("-")[0]

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def classes(self) -> int:
        return self.answers if self.architecture == "albef-ve" else 2

    @property
    def metadata(self) -> dict[str, str]:
        """What tensor shapes cannot tell, as checkpoints and goldens carry it."""
        facts = {
            "architecture": self.architecture,
            "vision_heads": self.vision_heads,
            "text_heads": self.text_heads,
            "fusion_layers": self.fusion_layers,
        }
        if self.vision_heads == self.text_heads:
            facts["heads"] = self.text_heads
        if self.family == "mplug":
            facts["stride_layer"] = self.stride_layer
        return {key: str(value) for key, value in facts.items()}


def tiny(architecture: str, **changes) -> Config:
    """A model of some 30,000 parameters: width 16, 16 patches, sizes that differ from one another."""
    sizes = dict(
        image_size=16, patch=4,
        vision_width=16, vision_layers=3, vision_heads=2, vision_ffn=24,
        text_width=16, text_heads=2, text_ffn=20, text_layers=1, fusion_layers=2,
        stored_fusion_layers=3, stride_layer=1, decoder_layers=2,
        vocabulary=48, positions=20, embed_dim=16, queue=4, momentum=False,
        start_id=1, end_id=2, clip_text=ClipText(width=8, layers=1, vocabulary=10, context=4),
    )
    if architecture == "mplug-grounding":
        sizes.update(vocabulary=400, prefix_id=40)
    return Config(architecture, **(sizes | changes))


def sample() -> Config:
    """A small model for tests: 36 patches, six vision blocks."""
    return tiny(
        "albef-retrieval", image_size=48, patch=8, vision_width=32, vision_layers=6, vision_heads=4, vision_ffn=40,
        text_width=32, text_heads=4, text_ffn=40, vocabulary=100,
    )


def scenes() -> Config:
    """The trained sample (tools/sample): 64 patches, six vision blocks, an answer out of 34."""
    return Config(
        "albef-ve", image_size=128, patch=16, vision_width=128, vision_layers=6, vision_heads=4, vision_ffn=512,
        text_width=128, text_heads=4, text_ffn=512, text_layers=2, fusion_layers=2, vocabulary=47, positions=16,
        start_id=2, end_id=3, answers=34, momentum=False,
    )


def large(architecture: str, **changes) -> Config:
    """mPLUG-large: ViT-L/14 of width 1024 before text towers of width 768."""
    sizes = dict(
        image_size=336, patch=14, vision_width=1024, vision_layers=24, vision_heads=16, vision_ffn=4096,
        decoder_layers=12, stride_layer=6, clip_text=ClipText(width=768),
    )
    return Config(architecture, **(sizes | changes))


def named(name: str) -> Config:
    """The configuration `tiny-ARCHITECTURE`, `base-ARCHITECTURE`, `large-mplug-…`, or one of the names below.

    `albef-base-256` and `albef-base-384` are the retrieval path of ALBEF at these picture sizes,
    `mplug-base` is visual question answering; `sample` is a small model for tests, `scenes` the trained sample.
    """
    special = {
        "sample": sample,
        "scenes": scenes,
        "albef-base-256": lambda: replace(named("base-albef-retrieval"), image_size=256),
        "albef-base-384": lambda: named("base-albef-retrieval"),
        "mplug-base": lambda: named("base-mplug-vqa"),
    }
    if name in special:
        return special[name]()
    size, _, architecture = name.partition("-")
    momentum = architecture not in ("mplug-caption", "mplug-grounding")
    if size == "tiny":
        return tiny(architecture)
    if size == "base":
        depth = 12 if architecture.startswith("mplug") else 6
        picture = 256 if architecture == "albef-pretrain" else 384
        return Config(architecture, decoder_layers=depth, image_size=picture, momentum=momentum)
    if size == "large" and architecture.startswith("mplug"):
        return large(architecture, momentum=momentum)
    raise ValueError(f"configuration {name}: expected tiny-…, base-…, large-mplug-…, or {', '.join(special)}")
