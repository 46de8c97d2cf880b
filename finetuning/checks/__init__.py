"""What is checked before training.

judgement        how much of a fault there is, where, and what to do
findings         keeps a table of the rows that have a fault
tokens           faults in the tokens that training will see
near_duplicates  conversations that nearly repeat each other
secrets          text that looks like a key or password
counted          rows with a fault and rows that were dropped, counted
"""
