"""What is checked before training.

judgement        how much of a fault there is, where, and what to do
findings         keeps a table of the rows that have a fault
tokens           faults in the tokens that training will see
near_duplicates  conversations that nearly repeat each other
shared_text      text that many rows share, which makes no two of them alike
white_space      white space that makes no difference between two rows
round_trip       what is lost between a text and what its tokens decode to
balance          how many answers were judged good and bad
seen_rows        questions of an exam that a model learned from elsewhere
eval_rows        whether eval is as large as asked for, and like train
counted          rows with a fault and rows that were dropped, counted
"""
