"""The stream of training samples: which ones, read, augmented, and as tensors."""
