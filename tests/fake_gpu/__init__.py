"""A GPU that computes nothing: the project's own trainer runs on it by shapes alone, on a machine that has no GPU.

device    torch takes this process's machine for one with that GPU
kernels   what stands for kernels that run on a GPU alone
counting  counts memory, kernels, matrix products, and waits for the device
tracing   one training, traced
traces    traces trainings in a process of its own
"""
