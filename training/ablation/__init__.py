"""Ablations: a grid of recipes, run with the same seeds, and the table and plots made of them."""
