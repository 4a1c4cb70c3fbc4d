"""One small router per group of paths."""
