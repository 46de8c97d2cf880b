"""Answers of a tuned model and its base, to whoever asks.

assistant      both sides, loaded once
source         what it speaks with
conversations  as many turns as fit
batches        answers many at once
replies        text out of tokens, as the exam reads it
"""
