"""The HMPE / D3Q detector."""
