"""Metrics and evaluation protocols."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
    from msdyn.evaluate.lpips import Lpips, load_lpips
    from msdyn.evaluate.object_motion import pose_errors, rigid_motion
    from msdyn.evaluate.pictures import save_comparison
    from msdyn.evaluate.protocol import (
        evaluate_frames,
        evaluate_object_motion,
        evaluate_points,
        evaluate_tracks,
        evaluate_views,
    )
    from msdyn.evaluate.tapvid3d import cameras_of_clip, evaluate_tapvid3d, tracker_of
    from msdyn.evaluate.targets import Target, evaluate_targets, renderer_of, targets_of_views
    from msdyn.evaluate.temporal import acceleration_error, flicker, jitter
    from msdyn.evaluate.tracking import (
        epe3d,
        image_track_metrics,
        normalised_track_metrics,
        pck_transfer,
        track_metrics,
        transfer_metrics,
    )
    from msdyn.evaluate.variant import Variant

__all__ = [
    "Lpips",
    "Target",
    "Variant",
    "acceleration_error",
    "cameras_of_clip",
    "epe3d",
    "evaluate_frames",
    "evaluate_object_motion",
    "evaluate_points",
    "evaluate_tapvid3d",
    "evaluate_targets",
    "evaluate_tracks",
    "evaluate_views",
    "flicker",
    "image_track_metrics",
    "jitter",
    "load_lpips",
    "masked_psnr",
    "masked_ssim",
    "masked_ssim_dycheck",
    "normalised_track_metrics",
    "pck_transfer",
    "pose_errors",
    "renderer_of",
    "rigid_motion",
    "save_comparison",
    "targets_of_views",
    "track_metrics",
    "tracker_of",
    "transfer_metrics",
]

__getattr__ = lazy_names(
    __name__,
    {
        "image_metrics": (
            "masked_psnr",
            "masked_ssim",
            "masked_ssim_dycheck",
        ),
        "lpips": (
            "Lpips",
            "load_lpips",
        ),
        "object_motion": (
            "pose_errors",
            "rigid_motion",
        ),
        "pictures": ("save_comparison",),
        "protocol": (
            "evaluate_frames",
            "evaluate_object_motion",
            "evaluate_points",
            "evaluate_tracks",
            "evaluate_views",
        ),
        "tapvid3d": (
            "cameras_of_clip",
            "evaluate_tapvid3d",
            "tracker_of",
        ),
        "targets": (
            "Target",
            "evaluate_targets",
            "renderer_of",
            "targets_of_views",
        ),
        "temporal": (
            "acceleration_error",
            "flicker",
            "jitter",
        ),
        "tracking": (
            "epe3d",
            "image_track_metrics",
            "normalised_track_metrics",
            "pck_transfer",
            "track_metrics",
            "transfer_metrics",
        ),
        "variant": ("Variant",),
    },
)
