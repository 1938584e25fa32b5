"""What is kept: windows, blocks, representatives, slots. Never a position, never a softmax."""
