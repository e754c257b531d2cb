"""Metrics and evaluation protocols."""

from msdyn.evaluate.image_metrics import masked_psnr, masked_ssim, masked_ssim_dycheck
from msdyn.evaluate.pictures import error_image, save_comparison
from msdyn.evaluate.protocol import Variant, evaluate_frames, evaluate_tracks, evaluate_views
from msdyn.evaluate.track_metrics import epe3d, query_tracks

__all__ = [
    "Variant",
    "epe3d",
    "error_image",
    "evaluate_frames",
    "evaluate_tracks",
    "evaluate_views",
    "masked_psnr",
    "masked_ssim",
    "masked_ssim_dycheck",
    "query_tracks",
    "save_comparison",
]
