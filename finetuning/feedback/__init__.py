"""What people say of answers, as a data set of the project's own.

entries  kept, exported and deleted
rows     what a training learns of them
"""
