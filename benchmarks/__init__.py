"""Measurements beside other projects; each is a command that ends with one line of JSON.

data                      the command that measures the preparation of data
data_ours                 this project's side of it
data_trl                  trl's side
data_llamafactory         LLaMA-Factory's side
data_side                 what its sides share
training                  the command that measures training on a CPU
training_ours             this project's side of it
training_trl              trl's side
training_llamafactory     LLaMA-Factory's side
training_bare             a plain loop's side
training_jobs             what its processes are told
training_preparation      what all sides train on
training_rows             made-up questions and answers
training_recorder         records steps
training_comparison       compares the records
training_loss             the loss of each side's adapter on the same rows
training_rate             how fast this machine multiplies matrices
training_profile          the command that shows where the time of a step goes
reinforcement             the command that measures training by rewards on a CPU
reinforcement_ours        this project's side of it
reinforcement_trl         trl's side
reinforcement_jobs        what its processes are told, and what they leave
gpu                       the command that measures training on a GPU
gpu_ours                  this project's side of it
gpu_trl                   trl's side
gpu_jobs                  what its processes are told
gpu_preparation           what all sides train on
gpu_recorder              records steps and memory of a GPU
gpu_comparison            compares the records
gpu_acceptance            the command that proves on a GPU what only a GPU can prove
acceptance                its parts
assistant                 the command that measures the assistant beside transformers' own server
evaluation                the command that measures answers beside transformers' own
overhead                  the command that measures what the pipeline costs beside a script
overhead_script           that script
fit                       the command that compares predicted and real memory
fit_table                 the command that says what is predicted to fit on which GPU
roofline                  the command that says how fast a step could be on a GPU
conversations             made-up conversations
memory                    how much memory a process holds
retrieval                 the command that measures how passages are found beside faiss
sides                     starts a side in a process of its own
llamafactory_environment  the environment that LLaMA-Factory runs in
"""
