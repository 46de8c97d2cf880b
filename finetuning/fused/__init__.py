"""Layers that compute in fewer steps, and keep less, while they are trained; their numbers differ by rounding.

layers     all of them
products   the adapter's products
norms      root-mean-square norms
gates      the gate of a feed-forward layer
rotations  the positions of queries and keys
compiled   a function as one kernel of a GPU
"""
