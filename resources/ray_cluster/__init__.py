"""Training and steps on a Ray cluster.

reach     whether steps go to a cluster, and what its nodes cannot reach
jobs      the jobs of a cluster that are steps: what each asks for and is told
training  one training over several hosts
worker    what each worker of a training does
board     what the workers and the step that started them say to each other
"""
