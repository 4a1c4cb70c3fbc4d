"""Other people's annotation formats into COCO files: one module a format, one writer for all."""
