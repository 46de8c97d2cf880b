"""Which of several settings an adapter is trained with: they are tried, and those that do worst go no further.

halving  who is compared when, and who goes on
summary  what was tried, and what was chosen
"""
