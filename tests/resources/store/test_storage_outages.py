"""Storage that is out is waited for and loses nothing; what refuses and what no setting is are named."""

import json
import time
from dataclasses import replace

import dagster as dg
import fsspec
import pytest

from finetuning.errors import FinetuningError, TransientError
from resources.artifacts import ArtifactIOManager, Artifacts
from resources.store.plan import checkpoints_of
from tests.resources.s3 import BUCKET, Machine, client, must_not_write, write_files
from tests.resources.store.machines import current


def test_a_server_that_is_out_for_a_moment_is_waited_for(server, here):
    def write(folder):
        server.stop()
        return write_files(folder)

    class Back(list):
        def append(self, line):
            super().append(line)
            if "trying again" in line and len(self) > 2:
                server.start()

    waiting = replace(here, said=Back(), pauses=(0.01, 0.01, 0.01, 0.01))
    waiting.plan().obtain(write)
    tries = [line for line in waiting.said if "; trying again in 0.01 s" in line]
    assert tries and "EndpointConnectionError" in tries[0]


def test_what_was_made_while_the_server_went_out_is_kept_and_stored_by_the_next_run(server, here, there):
    def write(folder):
        checkpoints_of(folder).mkdir()
        server.stop()
        return write_files(folder)

    try:
        with pytest.raises(
            TransientError, match=f"{here.address} cannot be reached or fails .*Nothing that was made is lost"
        ):
            here.plan().obtain(write)
        with pytest.raises(TransientError):
            here.store.fetch(here.plan().home / here.plan().fingerprint)
    finally:
        server.start()
    assert here.plan().obtain(must_not_write).reused
    current(there).verify()


def test_an_input_that_can_not_be_fetched_for_a_moment_is_worth_another_try(server, here, monkeypatch):
    context = dg.build_input_context(asset_key=dg.AssetKey("thing"), partition_key="tiny")
    loader = ArtifactIOManager(artifacts=Artifacts(root=here.address, cache=str(here.cache)))
    with pytest.raises(dg.Failure, match="no complete artifact") as none:
        loader.load_input(context)
    assert not none.value.allow_retries
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.stop()
    with pytest.raises(dg.Failure, match="cannot be reached") as out:
        loader.load_input(context)
    server.start()
    assert out.value.allow_retries
    made = here.plan().obtain(write_files)
    assert loader.load_input(context).path == made.path


def test_without_the_right_to_write_nothing_is_made(here, there):
    here.plan().obtain(write_files)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    s3 = client()
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    try:
        with pytest.raises(FinetuningError, match=f"{here.address}: refused .*have to allow to list, read, write"):
            there.plan(sections={"new": 1}).obtain(must_not_write)
        assert there.plan().obtain(must_not_write).reused, "what is there can be used without that right"
    finally:
        s3.delete_bucket_policy(Bucket=BUCKET)


def test_without_the_bucket_nothing_is_made(server, tmp_path):
    nowhere = Machine("s3://finetuning-nowhere/artifacts", tmp_path)
    with pytest.raises(FinetuningError, match="s3://finetuning-nowhere/artifacts: there is no such bucket"):
        nowhere.plan().obtain(must_not_write)


def test_without_credentials_the_message_says_where_they_are_looked_for(here, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    with pytest.raises(FinetuningError, match=r"refused \(NoCredentialsError.*AWS_ACCESS_KEY_ID .*AWS_PROFILE"):
        here.plan().obtain(must_not_write)
    s3.clear_instance_cache()


@pytest.mark.parametrize(
    ("root", "gigabytes", "said"),
    [
        ("gs://bucket/name", "50", r"gs://bucket/name needs a package .*gcsfs"),
        ("foo://bucket/name", "50", "Protocol not known: foo"),
        ("file:///data", "50", "write the folder as it is"),
        ("s3://", "50", "write an address such as s3://bucket/name"),
        ("sftp://me:password@host/name", "50", "write an address such as .* without a password"),
        ("s3://bucket/name", "much", "FINETUNING_ARTIFACTS_CACHE_GB: 'much' is not a number of gigabytes; write 50"),
    ],
)
def test_settings_that_are_none_are_named(root, gigabytes, said, tmp_path):
    with pytest.raises(FinetuningError, match=said) as error:
        Artifacts(root=root, cache=str(tmp_path), cache_gb=gigabytes).current("thing", "tiny")
    assert "me:password" not in str(error.value)
