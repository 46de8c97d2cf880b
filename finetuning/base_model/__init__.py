"""The frozen base model.

source                finds the weights: on the Hub, in a folder, or in a package
damage                finds damaged files
kinds                 tells models from adapters, and which are quantized already
weights               reads them, and finds what would be trained in vain
positions             how many tokens a model reads
quantized_base_model  quantizes them, and measures the error
loading               loads them for training
varlen                attention over rows of many lengths, by a kernel of torch
rows_apart            whether a model keeps rows apart that lie end to end, by trial
loftq                 starts an adapter from what quantization took away
quantization_summary  how large the quantized model is, and what that cost
"""
