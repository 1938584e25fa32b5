"""The adapter to transformers: the only package that uses its models, caches and masks."""
