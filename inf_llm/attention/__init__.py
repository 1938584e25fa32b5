"""Where a token stands and what it may see, one class per attention type."""
