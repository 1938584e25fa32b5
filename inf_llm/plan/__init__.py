"""What a model and a text of a length will take: bytes by place, and time where it was measured.

Nothing here loads weights but `calibrate`, which is asked for.
"""
