"""How good a detector is: metrics, charts, and the report of `python -m training evaluate`."""
