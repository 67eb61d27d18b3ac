"""How good a trained run is on samples it has not seen, by the paper's metrics."""
