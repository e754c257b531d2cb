"""File formats, one module each."""

from msdyn.io.video import VideoInfo, read_video, scan_video, write_video

__all__ = ["VideoInfo", "read_video", "scan_video", "write_video"]
