"""The LoRA adapter.

config      the recipe's section as peft's configuration
targets     the layers that it goes to, and whether it can
start       an adapter to go on from
merging     adapters of other recipes as one
embeddings  training of the rows of new tokens
loading     loads a base model with an adapter
checks      whether an adapter is whole, and changes something
"""
