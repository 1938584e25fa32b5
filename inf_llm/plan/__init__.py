"""The memory and the time that a model and a text of a given length will take.

Memory is given in bytes per place (device, host, disk). Time is known only where it was measured.
Only `calibrate` loads weights, and it runs only on request.
"""
