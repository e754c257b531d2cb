"""Gaussians and Gaussian sequences."""

from msdyn.sequence.gaussians import Gaussians, PosedGaussians
from msdyn.sequence.sequence import GaussianSequence
from msdyn.sequence.storage import load_sequence, save_sequence

__all__ = [
    "GaussianSequence",
    "Gaussians",
    "PosedGaussians",
    "load_sequence",
    "save_sequence",
]
