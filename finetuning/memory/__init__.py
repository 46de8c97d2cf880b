"""What a training will need of the memory, before it starts.

prediction  the peak, by what it is needed for
drawing     the peak of a training that draws its answers itself
shapes      the sizes of a model without its data
gpu_layers  what layers keep on a GPU, without one
data        what the rows ask for
free        the memory that is free now
fit         whether it fits, and which settings would
savings     changes of a recipe that need less
reach       whether the model reads all of its rows and answers
rows        what of the rows decides about memory
exam        the peak of the exam after it, and whether this machine has that
predicted_training  the process that predicts, and trains
"""
