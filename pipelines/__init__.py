"""The code location: which assets, jobs and sensors there are, and how runs are started and told.

definitions      everything that Dagster loads: assets, jobs, resources
command_line     tells a partition that a selection lacks, or cannot have
jobs             the main line as a job, and a look at the hub
executor         how steps are started: in processes of this machine, or on a Ray cluster
ray_executor     each step as a job of a Ray cluster
schedules        the weekly training
sensors          runs that start when recipes, data or base models changed
notices          posts failed runs and failed verdicts to a webhook
rollback         the job that makes an earlier version the published one again
retention        the job that removes artifacts that nothing refers to
outcomes         what became of a run, and which kind of trouble it had
starts           which adapters a recipe goes on from that are not there yet
results          prints what a run came to, and exits with a code that says it
compare          puts two exams side by side
code_location    starts a code location, and the runs again that were lost with the one before
code_references  links from each asset to its code
"""
