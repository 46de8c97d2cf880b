"""What a training will need of the memory, before it starts.

prediction  the peak, by what it is needed for
shapes      the sizes of a model without its data
data        what the rows ask for
free        the memory that is free now
fit         whether it fits, and which settings would
savings     changes of a recipe that need less
rows        what of the rows decides about memory
predicted_training  the process that predicts, and trains
"""
