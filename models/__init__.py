"""The network: layers, DetectionModel and checkpoints. Knows no data and no training."""
