"""The training of an adapter, in a process of its own.

lora_adapter       trains, from a base model and rows to an adapter
process            the process that trains
several_processes  starts several that train together
job                what that process is told, and what it leaves
summary            how a training went
settings           the recipe's section as trl's settings
resumable          a trainer that may be killed, and goes on
trainer            trl's trainer of rows with this project's batches and loss
rows               the rows that training reads
batches            which rows are in which step
supervised_loss    the loss of the answers' tokens
reference          the base model, with which a trained one is compared
preferences        DPO: the loss of preferences
judgements         KTO: the loss of answers that are judged good or bad
judged_rows        the rows of KTO, each with another row's answer
attention          which attention kernel is used
layers             the layers that a model is a stack of
sharding           a base model divided among processes (FSDP)
callback           progress, saves and early stopping, step by step
checkpoints        checkpoints that are whole
curves             losses as they are plotted
interruption       ends a training that is cancelled or hangs
peak_memory        the most memory that was held
"""
