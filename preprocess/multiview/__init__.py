"""Multi-view geometry: two-view models, triangulation, absolute pose, COLMAP, static points."""
