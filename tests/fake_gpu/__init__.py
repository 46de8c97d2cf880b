"""A GPU that computes nothing: the project's own trainer and exam run on it by shapes alone, where there is no GPU.

device     torch takes this process's machine for one with that GPU
kernels    what stands for kernels that run on a GPU alone
counting   counts memory, kernels, matrix products, and waits for the device
tracing    one training, traced
processes  training as the first of several processes
answering  one batch of answers, traced
traces     traces trainings and answers in a process of its own
"""
