"""Several servers in front of one disk, as events in time: who has which document, who waits."""
