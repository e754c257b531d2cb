"""File formats, one module each."""

from msdyn.io.dycheck import Dycheck, DycheckView, write_dycheck_views
from msdyn.io.dycheck_writer import write_dycheck
from msdyn.io.video import VideoInfo, read_video, scan_video, write_video

__all__ = [
    "Dycheck",
    "DycheckView",
    "VideoInfo",
    "read_video",
    "scan_video",
    "write_dycheck",
    "write_dycheck_views",
    "write_video",
]
