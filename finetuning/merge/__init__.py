"""Base model and adapter as one model.

merged_model     merges them, and compares the answers
gguf_file        writes one GGUF file
gguf_vocabulary  the tokenizer in that file
agreement        how near a merged model comes to base and adapter
"""
