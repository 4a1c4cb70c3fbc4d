"""The inference service: a verified model folder behind HTTP. Imports no other stage and no torch."""
