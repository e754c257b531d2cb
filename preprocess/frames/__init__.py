"""The frames stage: opening a video or a folder of images, finding its shots, extracting frames."""
