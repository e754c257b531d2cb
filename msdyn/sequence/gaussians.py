"""The parameters of a set of 3D Gaussians, and Gaussians posed at given times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.geometry import SH_C0, harmonics_basis
from msdyn.sequence.life_spans import life_window

__all__ = ["Gaussians", "PosedGaussians", "keep_objects"]

_SHAPES = {
    "means": (3,),
    "log_scales": (3,),
    "quats_wxyz": (4,),
    "opacity_logits": (),
    "life_spans": (2,),
}


class Gaussians(nn.Module):
    """Canonical 3D Gaussians (Eq. 1-2), stored before activation.

    Parameters: `means` [G, 3] scene units; `log_scales` [G, 3] of the standard deviations;
    `quats_wxyz` [G, 4], not necessarily unit; `opacity_logits` [G]; `harmonics` [G, (d+1)^2, 3],
    spherical harmonics coefficients of the colour minus one half; and, where Gaussians do not exist
    all the time, `life_spans` [G, 2], fractional frame indices at which the opacity has risen to
    one half of its value and fallen to it again, infinite where it does not rise or fall.

    Raises:
        InputError: a parameter of a wrong shape.
    """

    means: nn.Parameter
    log_scales: nn.Parameter
    quats_wxyz: nn.Parameter
    opacity_logits: nn.Parameter
    harmonics: nn.Parameter
    life_spans: nn.Parameter | None

    def __init__(
        self,
        means: Float[Tensor, "gaussians 3"],
        log_scales: Float[Tensor, "gaussians 3"],
        quats_wxyz: Float[Tensor, "gaussians 4"],
        opacity_logits: Float[Tensor, " gaussians"],
        harmonics: Float[Tensor, "gaussians coefficients 3"],
        life_spans: Float[Tensor, "gaussians 2"] | None = None,
    ) -> None:
        super().__init__()
        count = len(means)
        values = {
            "means": means,
            "log_scales": log_scales,
            "quats_wxyz": quats_wxyz,
            "opacity_logits": opacity_logits,
        }
        if life_spans is None:
            self.register_parameter("life_spans", None)
        else:
            values["life_spans"] = life_spans
        for name, value in values.items():
            if value.shape != (count, *_SHAPES[name]):
                raise InputError(
                    f"{name}: expected {[count, *_SHAPES[name]]}, got {list(value.shape)}"
                )
        if harmonics.shape not in {(count, (d + 1) ** 2, 3) for d in range(4)}:
            raise InputError(f"harmonics: expected [{count}, 1|4|9|16, 3], got {harmonics.shape}")
        for name, value in {**values, "harmonics": harmonics}.items():
            # Copied, because in-place updates of an expanded view would share memory.
            copied = value.detach().float().clone(memory_format=torch.contiguous_format)
            self.register_parameter(name, nn.Parameter(copied))

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "gaussians 3"],
        colours: Float[Tensor, "gaussians 3"],
        scales: Float[Tensor, " gaussians"],
        opacity: float = 0.5,
        degree: int = 0,
    ) -> Gaussians:
        """Make isotropic Gaussians.

        Args:
            points: scene units.
            colours: RGB in [0, 1].
            scales: standard deviations, scene units.
            opacity: initial opacity of all Gaussians, in (0, 1).
            degree: of the spherical harmonics, 0 for view-independent colours.
        """
        count = len(points)
        quats = torch.zeros(count, 4)
        quats[:, 0] = 1
        harmonics = torch.zeros(count, (degree + 1) ** 2, 3)
        harmonics[:, 0] = (colours - 0.5) / SH_C0
        return cls(
            points,
            scales.clamp_min(1e-9).log()[:, None].expand(count, 3),
            quats,
            torch.logit(torch.full((count,), opacity)),
            harmonics,
        )

    @classmethod
    def empty(cls, degree: int = 0) -> Gaussians:
        return cls.from_points(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), degree=degree)

    def __len__(self) -> int:
        return len(self.means)

    def with_life_spans(self, life_spans: Float[Tensor, "gaussians 2"] | None) -> Gaussians:
        """Return copies that exist during these life spans only; None for always."""
        return Gaussians(
            self.means,
            self.log_scales,
            self.quats_wxyz,
            self.opacity_logits,
            self.harmonics,
            life_spans,
        )

    def beside(self, other: Gaussians) -> Gaussians:
        """Return copies of these and of others, all of which exist always."""
        own, theirs = dict(self.named_parameters()), dict(other.named_parameters())
        return Gaussians(**{k: torch.cat([own[k], theirs[k]]).detach() for k in own})

    def select(self, index: Int[Tensor, " chosen"]) -> Gaussians:
        """Return the Gaussians at an index tensor."""
        return Gaussians(
            self.means[index],
            self.log_scales[index],
            self.quats_wxyz[index],
            self.opacity_logits[index],
            self.harmonics[index],
            None if self.life_spans is None else self.life_spans[index],
        )

    @property
    def scales(self) -> Float[Tensor, "gaussians 3"]:
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " gaussians"]:
        """Opacity while they exist, in [0, 1]."""
        return self.opacity_logits.sigmoid()

    def opacities_at(self, frames: Float[Tensor, " times"]) -> Float[Tensor, "#times gaussians"]:
        """Return the opacities at fractional frame indices; one row if they do not change."""
        if self.life_spans is None:
            return self.opacities[None]
        return self.opacities * life_window(self.life_spans, frames)


@dataclass(frozen=True)
class PosedGaussians:
    """Gaussians in the world at B times, the input of a rasterizer.

    Attributes:
        means: [B, G, 3] scene units.
        quats_wxyz: [B, G, 4], not necessarily unit.
        scales: [G, 3] standard deviations, scene units.
        opacities: [B or 1, G] in [0, 1], one row if all times share them.
        harmonics: [G, (d+1)^2, 3].
        rotations: [B, M, 3, 3] rotations of the moving Gaussians relative to the canonical frame.
            They are the last M Gaussians; the static ones come first.
        labels: [G] 0 static, otherwise the mask index of the object.
    """

    means: Float[Tensor, "times gaussians 3"]
    quats_wxyz: Float[Tensor, "times gaussians 4"]
    scales: Float[Tensor, "gaussians 3"]
    opacities: Float[Tensor, "#times gaussians"]
    harmonics: Float[Tensor, "gaussians coefficients 3"]
    rotations: Float[Tensor, "times moving 3 3"]
    labels: Int[Tensor, " gaussians"]

    @property
    def num_static(self) -> int:
        return len(self.scales) - self.rotations.shape[1]

    def only(self, objects: Sequence[int] | None, *, background: bool = True) -> PosedGaussians:
        """Return the Gaussians of some objects.

        Args:
            objects: mask indices of the moving objects to keep; all of them if None.
            background: whether to keep the static Gaussians.
        """
        if objects is None and background:
            return self
        keep = keep_objects(self.labels, objects, background=background)
        moving = keep[self.num_static :]
        return PosedGaussians(
            self.means[:, keep],
            self.quats_wxyz[:, keep],
            self.scales[keep],
            self.opacities[:, keep],
            self.harmonics[keep],
            self.rotations[:, moving],
            self.labels[keep],
        )

    def select(self, times: slice) -> PosedGaussians:
        """Return the same Gaussians at a slice of the times."""
        return replace(
            self,
            means=self.means[times],
            quats_wxyz=self.quats_wxyz[times],
            opacities=self.opacities[times] if len(self.opacities) > 1 else self.opacities,
            rotations=self.rotations[times],
        )

    def colours(
        self, camera_centres: Float[Tensor, "times 3"]
    ) -> Float[Tensor, "gaussians 3"] | Float[Tensor, "times gaussians 3"]:
        """Return non-negative RGB: [G, 3] for view-independent colours, else [B, G, 3].

        View directions of moving Gaussians are rotated back to the canonical frame, so that
        view-dependent appearance rotates with the object.
        """
        degree = int(self.harmonics.shape[1] ** 0.5) - 1
        if degree == 0:
            return (self.harmonics[:, 0] * SH_C0 + 0.5).clamp_min(0)
        directions = (self.means - camera_centres[:, None]).detach()
        static, moving = directions.split([self.num_static, self.rotations.shape[1]], dim=1)
        moving = (self.rotations.detach().mT @ moving.unsqueeze(-1)).squeeze(-1)
        directions = nn.functional.normalize(torch.cat([static, moving], dim=1), dim=-1)
        basis = harmonics_basis(degree, directions)  # [B, G, coefficients]
        return (torch.einsum("bgk,gkc->bgc", basis, self.harmonics) + 0.5).clamp_min(0)


def keep_objects(
    labels: Int[Tensor, " gaussians"], objects: Sequence[int] | None, *, background: bool
) -> Bool[Tensor, " gaussians"]:
    """Return the mask of the Gaussians to keep: see `PosedGaussians.only`."""
    kept = labels.unique() if objects is None else torch.tensor([*objects], device=labels.device)
    return torch.where(labels > 0, torch.isin(labels, kept), background)
