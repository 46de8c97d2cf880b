"""A code location of tests: jobs that do nothing but leave a line, at once or when they are let go."""

import time
from pathlib import Path

import dagster as dg


@dg.op(config_schema={"number": int, "file": str})
def leave_a_line(context: dg.OpExecutionContext) -> None:
    with Path(context.op_config["file"]).open("a") as file:
        file.write(f"{context.op_config['number']}\n")


@dg.op(config_schema={"file": str})
def wait_for_file(context: dg.OpExecutionContext) -> None:
    while not Path(context.op_config["file"]).exists():
        time.sleep(0.2)


@dg.job(executor_def=dg.in_process_executor)
def no_op():
    leave_a_line()


@dg.job(executor_def=dg.in_process_executor)
def waits():
    wait_for_file()


defs = dg.Definitions(jobs=[no_op, waits])
