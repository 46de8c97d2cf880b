"""A model that says which of two answers is the better one, asked over HTTP or on this machine.

protocol  the question in both orders, and which replies are a choice
asker     who can be asked
endpoint  asks an API like OpenAI's
refusals  what it refused, in words
ledger    every judgement that was paid for
judge     many pairs, each in both orders
choices   what people preferred
"""
