"""What a person sees of a run: lines, metrics, boards, curves, evaluations and pictures of predictions."""
