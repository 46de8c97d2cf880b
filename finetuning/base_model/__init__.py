"""The frozen base model.

source                finds the weights: on the Hub, in a folder, or in a package
quantized_base_model  quantizes them, and measures the error
loading               loads them for training
loftq                 starts an adapter from what quantization took away
quantization_summary  how large the quantized model is, and what that cost
"""
