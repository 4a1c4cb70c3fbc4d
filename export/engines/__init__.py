"""TensorRT engines of a model folder. The library is loaded when an engine is built or run, not before."""
