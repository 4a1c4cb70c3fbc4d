"""Scenes: pictures of any size, as work that can be stopped and goes on where it was."""
