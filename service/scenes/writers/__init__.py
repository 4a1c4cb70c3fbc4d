"""One module for each format of a scene's result: `write(path, info, batches)`."""
