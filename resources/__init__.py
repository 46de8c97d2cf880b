"""Everything outside the process that an asset uses: stores, hub, GPU, processes that train.

artifacts          the store of artifacts, as the recipes' assets use it
store              where artifacts are kept: on a disk, or at an address such as s3://…
gpu                what this machine can do
environment        what libraries read of the environment, once
hub                address and token of the hub, and publishing
hub_client         talks to a hub, and waits for one that is out
hub_server         a hub on this machine that speaks the Hub's HTTP API
launcher           runs training in a process of its own, or in several
ray_cluster        training and steps on a Ray cluster
assistant          talks to what was trained: terminal, HTTP, page
loopback           ports of this machine that no other machine reaches
markdown           Markdown from anybody as HTML that is safe to show
compute_logs       keeps what steps print in files, and shows their own lines on the terminal
lost_runs          finds runs whose process is gone
dagster_internals  the private names of Dagster that are used
ray_internals      the private names of Ray that are used
"""
