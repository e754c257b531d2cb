"""What a Gaussian sequence says of given pixels; it lives with the rendering that answers it."""

from msdyn.render.queries import query_objects, query_tracks, rendered_depth

__all__ = ["query_objects", "query_tracks", "rendered_depth"]
