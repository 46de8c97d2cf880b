"""The parts of `benchmarks.gpu_acceptance`, each a command: `python -m benchmarks.acceptance.PART FOLDER DEVICE SHAPE`.

agreement   NF4, the attention kernels and the loss compute what a CPU does
recipes     two steps of each shipped recipe's architecture
memory      what a training is predicted to need, and what it holds
generation  how fast a model answers
resume      a killed training goes on
half        training in float16, as GPUs before Ampere do
findings    what a part writes down of each thing it tried
tiny        small trainings for the parts that compare devices
large       the random 7B model for the parts that measure
"""
