"""The LoRA adapter.

config      the recipe's section as peft's configuration
embeddings  training of the rows of new tokens
loading     loads a base model with an adapter
checks      whether an adapter is whole, and changes something
"""
