"""Open-loop load on a running service: calls arrive when they are due, whether or not earlier ones were answered."""
