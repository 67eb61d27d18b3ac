"""From an image to a layered point cloud: framing, sampling, files."""
