"""A folder that holds a memory: manifest, segments and lock. No model is known here."""
