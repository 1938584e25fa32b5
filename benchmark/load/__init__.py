"""Load on a real server: its process, its clients, what they do together, and the figures."""
