"""Pictures with boxes: COCO files, random changes, batches, and synthetic scenes."""
