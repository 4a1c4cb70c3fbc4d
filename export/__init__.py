"""From a checkpoint to a model folder: ONNX graphs, what they are, and proof that they agree with torch."""
