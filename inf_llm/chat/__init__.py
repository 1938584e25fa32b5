"""Conversations that keep what they read.

session.py    ChatSession: questions, answers, documents
turns.py      what was said, and its file
layout.py     turns to a prompt: the tokenizer's template, a published one, or FastChat's
memory.py     which part of a prompt is in memory already
task.py       reading and answering beside the terminal, so that Ctrl-C ends just that
styles.py     FastChat's terminal styles, and a plain one without it
terminal.py   the terminal chat
"""
