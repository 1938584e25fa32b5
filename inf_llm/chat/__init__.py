"""Conversations that keep what they read.

session.py    ChatSession: questions, answers, documents
turns.py      what was said, and its file
memory.py     how much of a prompt was in memory already
"""
