"""The seam with transformers: the only room that knows its models, caches and masks."""
