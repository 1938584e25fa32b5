"""Storage of past tokens: windows, blocks, summaries, slots. No positions and no softmax."""
