"""Attention types, one class per type: the positions of tokens, and the tokens that they see."""
