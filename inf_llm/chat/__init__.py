"""Conversations that keep their documents and turns in the memory of the model.

session.py    ChatSession: questions, answers, documents
turns.py      the turns of a conversation, and their file
memory.py     the memory of a conversation, and its reuse by the next prompt
"""
