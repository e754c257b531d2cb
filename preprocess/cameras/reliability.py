"""How far depth from solved cameras can be trusted: a grade, the reason and a cure.

The limits are from clips of known geometry: with triangulation angles of 8 to 14 degrees the order
of depths is right, at 3 it depends on the initial focal length, and at 1.5 a rotating camera
explains the clip as well as a moving one.

What is said of the motion of the camera follows from two figures: how far the background moves in
the image, and how much of that rotations leave unexplained, the parallax. A fast pan has much of
the first and none of the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msdyn.preprocess.contracts import Verdict

__all__ = [
    "CameraFigures",
    "error_limit",
    "has_few_points",
    "is_ambiguous",
    "judge_cameras",
]

MIN_REGISTERED = 0.8
MAX_ERROR_PX = 1.2  # for images up to ERROR_SIDE px, and in proportion above
ERROR_SIDE = 854
MAX_FOCAL_RATIO = 1.1
# The error stated of the focal length (`focal_error`). On clips of known focal length it is 1 to 20
# times the actual error, 2.3 to 4.7 % where the camera moves well.
WEAK_FOCAL, POOR_FOCAL = 0.1, 0.2
# Share of the pairs of frames that a homography explains, above which pairs tell nothing of the
# focal length, so that it depends on the few others or on long tracks. Of rendered clips with such
# a share some have a focal length .4 % off and some 3 %: it only halves the errors accepted.
MAX_PLANAR = 0.95
NEARLY_STATIC_PX = 2.0  # image motion of the background in ten frames
POOR_DEGREES, WEAK_DEGREES = 2.0, 5.0
# Share of the static tracks that the cameras explain, and points seen in the median frame. On clips
# whose cameras are right the share is .65 or more, also over-exposed ones, and there are 60 points
# or more; where nothing is static .45 or less, where motion blur is strong .19 to .52 or 12 points.
MIN_EXPLAINED, MIN_FRAME_POINTS = 0.55, 20

DEPTH_CURE = (
    "use a depth network (--depth small) or give depth maps (--depth files --depth-path DIR)"
)
CURE = f"{DEPTH_CURE}, or go on all the same with --accept-poor"
FOCAL_CURE = (
    "give the focal length (--intrinsics FX FY CX CY) or known cameras (--cameras files "
    f"--cameras-path FILE), {CURE}"
)

UNSOLVED_CURE = (
    "film with more light or a shorter exposure, with parts of the view static; or give known "
    "cameras (--cameras files --cameras-path FILE) or masks of what moves (--masks files "
    "--masks-path DIR), or go on all the same with --accept-poor"
)


@dataclass(frozen=True)
class CameraFigures:
    """Figures that a verdict is based on.

    Attributes:
        motion: how the camera moved; "unknown": nothing could be solved.
        long_side: of the image, px.
        frames: number of frames.
        registered: frames whose camera was found.
        error: px, mean reprojection error.
        angle: degrees, median over the static points of the largest angle between two rays.
        background_px: px, image motion of the background within ten frames; infinite: unknown.
        parallax: degrees, residual of a rotating camera.
        focals: px, the focal lengths that explain the clip about equally well.
        focal_error: twice the standard error of the focal length, as a share of it; None where
            not measured.
        planar: share of pairs of frames that one homography explains, None where not measured.
        given: the cameras are the user's, and their intrinsics known.
        focal_given: the intrinsics are the user's, and were kept.
        explained: share of the tracks taken for static that the cameras explain; None: unknown.
        frame_points: number of static points seen in the median frame; None where not measured.
        focal_contradiction: share by which the clip contradicts their focal length, positive where
            it is too short; None where it does not.
    """

    motion: Literal["moving", "rotating", "static", "unknown"]
    long_side: int
    frames: int
    registered: int = 0
    error: float = 0.0
    angle: float = 0.0
    background_px: float = 0.0
    parallax: float = 0.0
    focals: tuple[float, ...] = ()
    focal_error: float | None = None
    planar: float | None = None
    given: bool = False
    focal_given: bool = False
    explained: float | None = None
    frame_points: int | None = None
    focal_contradiction: float | None = None


def judge_cameras(figures: CameraFigures) -> Verdict:
    """Return the verdict on triangulating depth with these cameras."""
    poor = _why_poor(figures)
    if poor is not None:
        return Verdict("poor", *poor)
    weak = _why_weak(figures)
    return Verdict("good") if weak is None else Verdict("usable", *weak)


def error_limit(figures: CameraFigures) -> float:
    """Return the reprojection error, px, up to which cameras fit an image of this size."""
    return MAX_ERROR_PX * max(1.0, figures.long_side / ERROR_SIDE)


def has_few_points(figures: CameraFigures) -> bool:
    """Return whether the cameras of structure from motion rest on hardly any static points."""
    return figures.frame_points is not None and figures.frame_points < MIN_FRAME_POINTS


def is_ambiguous(figures: CameraFigures) -> bool:
    """Return whether a moving camera was solved, but its focal length or depth is ambiguous.

    Such cameras serve where depth is not triangulated from them.
    """
    if figures.given or figures.motion != "moving" or _why_unsolved(figures) is not None:
        return False
    return _why_ambiguous(figures) is not None


def _why_weak(figures: CameraFigures) -> tuple[str, str] | None:
    """Return the reason and the cure where triangulated depth is inexact, else None."""
    if figures.given:
        return None
    if figures.angle < WEAK_DEGREES:
        return (
            f"there is little parallax ({_parallax(figures)}): depth is coarse",
            f"move the camera further sideways while filming, or {DEPTH_CURE}",
        )
    if figures.focal_contradiction is not None:
        change = figures.focal_contradiction
        return (
            f"the clip contradicts the focal length of --intrinsics: one at least {abs(change):.0%}"
            f" {'longer' if change > 0 else 'shorter'} fits it better",
            "check that it is in pixels of the video at its full size, or use --intrinsics-use "
            "start",
        )
    planar = "" if figures.focal_given else _planar(figures)
    if figures.focal_error is None and planar:
        return (
            f"the focal length cannot be checked{planar}: shapes may be distorted in depth",
            f"take more frames, with depth in every frame, or {FOCAL_CURE}",
        )
    if figures.focal_error is not None and figures.focal_error > _tolerated(figures, WEAK_FOCAL):
        return (
            f"the focal length is known to {figures.focal_error:.0%} only{planar}: shapes are "
            "distorted in depth",
            f"move the camera further sideways and rotate it less while filming, or {FOCAL_CURE}",
        )
    if figures.registered < figures.frames:
        missing = figures.frames - figures.registered
        return (
            f"the cameras of {missing} of {figures.frames} frames were not found and are "
            "interpolated",
            "cut the clip to its sharp part, with --max-frames or a video editor",
        )
    return None


def _why_poor(figures: CameraFigures) -> tuple[str, str] | None:
    """Return the reason and the cure where depth cannot be triangulated, else None."""
    if figures.motion == "static":
        guess = "" if figures.given or figures.focal_given else " and the focal length is a guess"
        return (
            f"the camera is static ({_background(figures)}): depth cannot be triangulated{guess}",
            CURE,
        )
    if figures.motion == "rotating":
        slow = figures.background_px < NEARLY_STATIC_PX
        what = "nearly static" if slow else "rotating in one place"
        return (
            f"the camera is {what} ({_background(figures)}, all but {figures.parallax:.2f} degrees "
            "of it by rotation): depth cannot be triangulated",
            CURE,
        )
    if figures.given:
        return None
    return _why_unsolved(figures) or _why_ambiguous(figures)


def _why_unsolved(figures: CameraFigures) -> tuple[str, str] | None:
    """Return the reason and the cure where cameras were not found, or fit badly, else None."""
    if figures.motion == "unknown" or figures.registered < MIN_REGISTERED * figures.frames:
        return (
            f"the cameras of only {figures.registered} of {figures.frames} frames were found",
            FOCAL_CURE,
        )
    limit = error_limit(figures)
    if figures.error > limit:
        return (
            f"the cameras fit badly (reprojection error {figures.error:.2f} px, "
            f"expected at most {limit:.2f})",
            FOCAL_CURE,
        )
    if has_few_points(figures):
        return (
            f"the cameras rest on {figures.frame_points} static points per frame: the images are "
            "blurred or without texture, or nothing in them is static",
            UNSOLVED_CURE,
        )
    if figures.explained is not None and figures.explained < MIN_EXPLAINED:
        return (
            f"the cameras explain only {figures.explained:.0%} of what is taken for static: nearly "
            "everything moves by itself, or the images are blurred",
            UNSOLVED_CURE,
        )
    return None


def _why_ambiguous(figures: CameraFigures) -> tuple[str, str] | None:
    """Return the reason and the cure where focal length and depth are ambiguous, else None."""
    if max(figures.focals) > MAX_FOCAL_RATIO * min(figures.focals):
        return (
            "the focal length is ambiguous ("
            + " or ".join(f"{focal:.0f}" for focal in sorted(figures.focals))
            + " px fit about equally well): the order of depths cannot be trusted",
            FOCAL_CURE,
        )
    if figures.focal_error is not None and figures.focal_error > _tolerated(figures, POOR_FOCAL):
        return (
            f"the focal length is ambiguous (known to {figures.focal_error:.0%} only"
            f"{_planar(figures)}): the order of depths cannot be trusted",
            FOCAL_CURE,
        )
    if figures.angle < POOR_DEGREES:
        return (
            f"there is too little parallax ({_parallax(figures)}): depth cannot be triangulated",
            CURE,
        )
    return None


def _planar(figures: CameraFigures) -> str:
    """Return in words that pairs of frames tell nothing of the focal length; "" if they do."""
    if figures.planar is None or figures.planar <= MAX_PLANAR:
        return ""
    return f", and a homography explains {figures.planar:.1%} of the pairs of frames"


def _tolerated(figures: CameraFigures, error: float) -> float:
    """Return the error of the focal length that is accepted."""
    return error / 2 if _planar(figures) else error


def _background(figures: CameraFigures) -> str:
    """Return the image motion of the background in words."""
    if figures.background_px == float("inf"):
        return "no background point is followed for ten frames"
    digits = 2 if figures.background_px < NEARLY_STATIC_PX else 0
    return f"the background moves {figures.background_px:.{digits}f} px in ten frames"


def _parallax(figures: CameraFigures) -> str:
    """Return the triangulation angle and the image motion in words."""
    return f"a median triangulation angle of {figures.angle:.1f} degrees; {_background(figures)}"
