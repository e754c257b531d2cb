"""Sizes and variants of the feed-forward network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from msdyn.errors import InputError

__all__ = ["ModelConfig"]

AttributeMotion = Literal["none", "add", "replace"]


@dataclass(frozen=True)
class ModelConfig:
    """The feed-forward network (MoVieS): sizes, conditioning and parameterisation.

    The defaults are our variant; `published` is the released network.

    Raises:
        InputError: sizes that do not fit together.
    """

    patch: int = 14
    """Side of a patch, px."""
    width: int = 1024
    """Channels of a token."""
    encoder_blocks: int = 24
    """Blocks of the encoder, a vision transformer applied to single frames."""
    encoder_heads: int = 16
    """Attention heads of the encoder."""
    position_grid: int = 37
    """Rows and columns of the encoder's table of position embeddings."""
    registers: int = 4
    """Register tokens of the encoder, and of the aggregator."""
    pairs: int = 24
    """Pairs of blocks of the aggregator: attention within frames, then among all frames."""
    heads: int = 16
    """Attention heads of the aggregator."""
    aggregator_layer_scale: float = 1.0
    """Initial layer scale of the aggregator's blocks."""
    head_layers: tuple[int, int, int, int] = (4, 11, 17, 23)
    """Pairs whose output the prediction heads read."""
    head_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    """Channels of these four layers in the prediction heads."""
    head_features: int = 256
    """Channels of the fusion in the prediction heads."""
    plucker: bool = True
    """Add Plücker embeddings of the cameras to the patch tokens (Table 4)."""
    camera_token: bool = True
    """Add a token of the camera to each frame (Table 4)."""
    time_token: bool = True
    """Add a token of the time to each frame; not in the static stage."""
    motion: bool = True
    """Predict motion; not in the static stage."""
    attribute_motion: AttributeMotion = "add"
    """How the other attributes change with the query time: `add` as in the paper (Eq. 1),
    `replace` those of Gaussians that have moved, as in the released code, or `none`."""
    scale_unit: Literal["constant", "pixel"] = "pixel"
    """Unit of the predicted scales: .001 as published, or a pixel's width at the depth."""
    moving: float = 0.005
    """Displacement from which a Gaussian has moved, in the normalised world (released code)."""
    correlation: bool = False
    """Add matches between frames to the patch tokens; not in the published network."""
    detail: bool = False
    """Give the heads features of the images of four times the resolution of the patches, so that
    they see the borders of objects; not in the published network."""
    published: bool = False
    """Reproduce what trained weights of the released network rely on: residual units that add
    relu(x), times rounded to bfloat16 if the network computes in it, both layers of the Plücker
    branch initialised to zero (which never learn), and a mask token that nothing uses."""

    def __post_init__(self) -> None:
        for name in ("head_layers", "head_channels"):
            if len(getattr(self, name)) != 4:
                raise InputError(f"{name}: expected 4 numbers, got {len(getattr(self, name))}")
        if not max(self.head_layers) < self.pairs:
            raise InputError(
                f"head_layers: expected numbers below {self.pairs}, the pairs of blocks, got "
                f"{self.head_layers}"
            )
        for name, heads in (("encoder_heads", self.encoder_heads), ("heads", self.heads)):
            if heads < 1 or self.width % heads:
                raise InputError(f"{name}: expected a divisor of {self.width}, got {heads}")
        if self.correlation and self.patch % 2:
            raise InputError(f"patch: expected an even number with correlation, got {self.patch}")
        if self.width // self.heads % 4:
            raise InputError(
                f"heads: expected {self.width}/heads to be a multiple of 4 for the rotary "
                f"embedding, got {self.width // self.heads}"
            )

    @classmethod
    def published_network(cls) -> ModelConfig:
        """Return the released network, of 1,041,147,254 parameters."""
        return cls(
            aggregator_layer_scale=0.01,
            attribute_motion="replace",
            scale_unit="constant",
            published=True,
        )

    @classmethod
    def published_static(cls) -> ModelConfig:
        """Return the released network of the static stage, without time and motion."""
        return cls(
            aggregator_layer_scale=0.01,
            attribute_motion="none",
            scale_unit="constant",
            published=True,
            time_token=False,
            motion=False,
        )

    @classmethod
    def small(cls) -> ModelConfig:
        """Return a network of a few million parameters, which a CPU can train."""
        return cls(
            patch=8,
            width=128,
            encoder_blocks=3,
            encoder_heads=4,
            position_grid=8,
            pairs=3,
            heads=4,
            head_layers=(0, 1, 2, 2),
            head_channels=(24, 48, 96, 96),
            head_features=32,
        )

    @classmethod
    def medium(cls) -> ModelConfig:
        """Return a network of seven million parameters, which one GPU can train in minutes."""
        return replace(
            cls.small(),
            width=192,
            encoder_blocks=4,
            encoder_heads=3,
            position_grid=14,
            pairs=4,
            heads=3,
            head_layers=(0, 1, 2, 3),
            head_features=40,
        )

    @property
    def special_tokens(self) -> int:
        """Tokens of a frame before its patches: time, camera pose, camera, registers."""
        return int(self.time_token) + int(self.camera_token) + 1 + self.registers

    @property
    def kept_layers(self) -> tuple[int, ...]:
        """The layers that the heads read, increasing, each once."""
        return tuple(sorted(set(self.head_layers)))

    def to_json(self) -> dict[str, Any]:
        """Return all values, for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelConfig:
        """Restore a config from `to_json`.

        Raises:
            InputError: an unknown field, or a value of the wrong type.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        for name, value in values.items():
            if name not in defaults:
                raise InputError(f"model config: expected one of {', '.join(defaults)}, got {name}")
            expected = type(defaults[name])
            if expected is tuple:
                valid = type(value) is tuple and all(type(n) is int for n in value)
            else:
                valid = type(value) is expected or (expected is float and type(value) is int)
            if not valid:
                raise InputError(
                    f"model config: {name}: expected {expected.__name__}, got {value!r}"
                )
        return cls(**values)
