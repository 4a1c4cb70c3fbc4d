"""What is in a data set: the statistics, twins and pictures of `python -m training inspect`."""
