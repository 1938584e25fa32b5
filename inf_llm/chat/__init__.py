"""Conversations that keep what they read.

session.py    ChatSession: questions, answers, documents
turns.py      what was said, and its file
memory.py     how much of a prompt was in memory already
task.py       reading and answering beside the terminal, so that Ctrl-C ends just that
styles.py     FastChat's terminal styles, and a plain one without it
terminal.py   the terminal chat
"""
