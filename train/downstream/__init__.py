"""What a prediction is good for (paper, section 5): voxels for mesh decoders, guidance for video models, insertion."""
