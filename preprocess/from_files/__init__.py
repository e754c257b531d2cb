"""The `files` backends: bring your own cameras, depth, masks and tracks."""

from msdyn.preprocess.cameras.from_files import FileCameras
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.masks.from_files import FileMasks
from msdyn.preprocess.tracks.from_files import FileTracks

__all__ = ["FileCameras", "FileDepth", "FileMasks", "FileTracks"]
