"""Engines run the exported graphs; `base` states what the rest of the service may ask of one."""
