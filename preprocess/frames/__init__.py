"""The frames stage: sources of frames, detection of shots, extraction."""
