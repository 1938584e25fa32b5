"""Several machines, or several processes of one, by Ray."""
