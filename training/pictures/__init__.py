"""Pictures of a run, of a detector at work, and sheets of thumbnails."""
