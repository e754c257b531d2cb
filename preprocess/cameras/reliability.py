"""How far depth from solved cameras can be trusted: a grade, the reason and a cure.

The limits are from clips of known geometry: with triangulation angles of 8 to 14 degrees the order
of depths is right, at 3 it depends on the initial focal length, and at 1.5 a rotating camera
explains the clip as well as a moving one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msdyn.preprocess.contracts import Verdict

__all__ = ["CameraFigures", "judge_cameras"]

MIN_REGISTERED = 0.8
MAX_ERROR_PX = 1.2  # for images up to ERROR_WIDTH wide, and in proportion above
ERROR_WIDTH = 854
MAX_FOCAL_RATIO = 1.1
POOR_DEGREES, WEAK_DEGREES = 2.0, 5.0

DEPTH_CURE = (
    "use a depth network (--depth small) or give depth maps (--depth files --depth-path DIR)"
)
CURE = f"{DEPTH_CURE}, or go on all the same with --accept-poor"
FOCAL_CURE = f"give known cameras (--cameras files --cameras-path FILE), {CURE}"


@dataclass(frozen=True)
class CameraFigures:
    """Figures that a verdict is based on.

    Attributes:
        motion: how the camera moved; "unknown": nothing could be solved.
        width: image width in px.
        frames: number of frames.
        registered: frames whose camera was found.
        error: px, mean reprojection error.
        angle: degrees, median over the static points of the largest angle between two rays.
        background_px: px, image motion of the background within ten frames.
        parallax: degrees, residual of a rotating camera.
        focals: px, the focal lengths that explain the clip about equally well.
        planar: share of pairs of frames that one homography explains, None where not measured.
    """

    motion: Literal["moving", "rotating", "static", "unknown"]
    width: int
    frames: int
    registered: int = 0
    error: float = 0.0
    angle: float = 0.0
    background_px: float = 0.0
    parallax: float = 0.0
    focals: tuple[float, ...] = ()
    planar: float | None = None


def judge_cameras(figures: CameraFigures) -> Verdict:
    """Return the verdict on triangulating depth with these cameras."""
    poor = _why_poor(figures)
    if poor is not None:
        reason, cure = poor
        return Verdict("poor", reason, cure)
    if figures.angle < WEAK_DEGREES:
        return Verdict(
            "usable",
            f"the camera moves little (median triangulation angle {figures.angle:.1f} degrees): "
            "depth is coarse",
            f"move the camera further sideways while filming, or {DEPTH_CURE}",
        )
    if figures.registered < figures.frames:
        missing = figures.frames - figures.registered
        return Verdict(
            "usable",
            f"the cameras of {missing} of {figures.frames} frames were not found and are "
            "interpolated",
            "cut the clip to its sharp part, with --max-frames or a video editor",
        )
    return Verdict("good")


def _why_poor(figures: CameraFigures) -> tuple[str, str] | None:
    """Return the reason and the cure where depth cannot be triangulated, else None."""
    if figures.motion == "static":
        return (
            f"the camera is static (background moves {figures.background_px:.2f} px in ten "
            "frames): depth cannot be triangulated and the focal length is a guess",
            CURE,
        )
    if figures.motion == "rotating":
        return (
            "the camera turns but hardly moves (turning leaves "
            f"{figures.parallax:.2f} degrees unexplained): depth cannot be triangulated",
            CURE,
        )
    if figures.motion == "unknown" or figures.registered < MIN_REGISTERED * figures.frames:
        return (
            f"the cameras of only {figures.registered} of {figures.frames} frames were found",
            FOCAL_CURE,
        )
    limit = MAX_ERROR_PX * max(1.0, figures.width / ERROR_WIDTH)
    if figures.error > limit:
        return (
            f"the cameras fit badly (reprojection error {figures.error:.2f} px, "
            f"expected at most {limit:.2f})",
            FOCAL_CURE,
        )
    if max(figures.focals) > MAX_FOCAL_RATIO * min(figures.focals):
        return (
            "the focal length is ambiguous ("
            + " or ".join(f"{focal:.0f}" for focal in sorted(figures.focals))
            + " px fit about equally well): the order of depths cannot be trusted",
            FOCAL_CURE,
        )
    if figures.angle < POOR_DEGREES:
        return (
            "the camera hardly moves (median triangulation angle "
            f"{figures.angle:.1f} degrees): depth cannot be triangulated",
            CURE,
        )
    return None
