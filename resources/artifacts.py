"""Where every asset's output lives: a folder named by its fingerprint, written whole or not at all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypedDict

import dagster as dg

from finetuning.errors import KIND, FinetuningError, TransientError
from finetuning.recipe.sections import ASKED_FOR_BY, asks_for
from finetuning.recipe.smoke import is_smoke, load_for_run
from finetuning.secrets import masked
from finetuning.settings import text_of, variable
from resources.store.artifact import LOG, Artifact, Log, Origin, fingerprint_of, plain
from resources.store.disk import DiskStore
from resources.store.locks import hold
from resources.store.plan import Plan
from resources.store.store import Store


class Settings(TypedDict):
    """The settings with which another machine finds the same artifacts; its cache is its own."""

    root: str
    cache_gb: str
    smoke: bool


class Artifacts(dg.ConfigurableResource):
    """The store: `<root>/<asset>/<partition>/<fingerprint>/`, and `current.json` that names the one in force.

    Where `root` is an address, such as s3://bucket/name, the artifacts are there, and those that are used lie below
    `cache` too, in as many gigabytes as `cache_gb` says.
    """

    root: str = "artifacts"
    cache: str = ".cache/artifacts"
    cache_gb: str = "50"
    smoke: bool = False
    """Whether these are the artifacts of smoke runs, which have a root of their own."""

    @classmethod
    def of_environment(cls) -> Self:
        """Return the store that the environment names; smoke runs have one of their own, and a cache."""
        below = "/smoke" if is_smoke() else ""
        return cls(
            root=text_of("artifacts").rstrip("/") + below,
            cache=text_of("artifacts_cache") + below,
            cache_gb=text_of("artifacts_cache_gb"),
            smoke=is_smoke(),
        )

    def store(self, log: Log = LOG) -> Store:
        """Return the store that `root` names: a folder, or an address on object storage.

        Raises:
            FinetuningError: the address, or the limit of the cache, is not valid; or no folder can be there.
        """
        if "://" not in self.root:
            return DiskStore(_folder(self.root, "artifacts"))
        from resources.store.object_store import object_store

        _folder(self.cache, "artifacts_cache")
        return object_store(self.root, self.cache, self.cache_gb, log)

    def everywhere(self) -> Settings:
        """Return the settings with which another machine finds the same artifacts; its cache is its own."""
        return {"root": self.store().address, "cache_gb": self.cache_gb, "smoke": self.smoke}

    def home(self, asset: str, partition: str) -> Path:
        """Return the folder of one asset's artifacts for one partition, on this machine."""
        return self.store().home(asset, partition)

    def current(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """Return the artifact in force.

        Raises:
            FinetuningError: none is there yet, what `current.json` names is not complete, or a smoke run made it and
                this is none, or the other way round.
        """
        store = self.store(log)
        home = store.home(asset, partition)
        fingerprint = store.in_force(home)
        artifact = None
        if fingerprint:
            # In its own home where partitions share it.
            artifact = store.fetch(home / fingerprint) or store.fetch(store.home(asset, fingerprint) / fingerprint)
        if artifact is None:
            raise FinetuningError(
                f"{store.address_of(home)}: no complete artifact of {asset} for {partition}. "
                f"Materialize it first: "
                f"dagster asset materialize --select {asset} --partition {partition} -m pipelines.definitions"
            )
        if artifact.smoke != self.smoke:
            made, asked = ("a smoke run", "none") if artifact.smoke else ("a real run", "a smoke run")
            raise FinetuningError(
                f"{artifact.path}: made by {made}, and this is {asked} (FINETUNING_SMOKE). The two have folders of "
                f"their own: see FINETUNING_ARTIFACTS, or materialize {asset} for {partition} again."
            )
        return artifact

    def find(self, asset: str, partition: str, fingerprint: str, log: Log = LOG) -> Artifact | None:
        """Return the artifact of that fingerprint, in force or not; None where it is not complete, or there is none."""
        store = self.store(log)
        return store.fetch(store.home(asset, partition) / plain(fingerprint))

    def held(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """Return the artifact in force, which nobody removes before this process ends.

        Raises:
            FinetuningError: none is there.
        """
        while True:
            artifact = self.current(asset, partition, log)
            # It may have been removed, or have gone out of force, before it was held.
            store = self.store(log)
            if hold(artifact.path) and store.in_force(store.home(asset, partition)) == artifact.fingerprint:
                return artifact

    def lineage(self, artifact: Artifact, log: Log = LOG) -> dict[str, Artifact]:
        """Return `artifact` and all that it was made from, by asset: each the one in force, and held.

        Raises:
            FinetuningError: one of them is gone, or is not the one in force any more, so that the artifact says
                nothing about it.
        """
        found, waiting = {artifact.asset: artifact}, [artifact]
        while waiting:
            made = waiting.pop()
            for asset in made.inputs:
                if asset not in found:
                    found[asset] = self.held(asset, artifact.partition, log)
                    waiting.append(found[asset])
                made.require_inputs(found[asset])
        return found

    def plan(
        self,
        context: dg.AssetExecutionContext,
        *,
        sections: Mapping[str, Any],
        resolved: Mapping[str, Any],
        inputs: Sequence[Artifact] = (),
        beside: tuple[str, str] | None = None,
        shared: bool = False,
    ) -> "Plan":
        """Return the artifact-to-be of the asset and partition that `context` materializes, with its fingerprint.

        The fingerprint is made of the asset, its code version, the recipe `sections` that it reads, what they
        `resolved` to, and the fingerprints of its `inputs`. It holds for the very files that these have today, and not
        for others of the same fingerprint, such as those of a training that was done again on another machine.

        Args:
            beside: of an artifact that the asset makes beside its own, for other recipes to use too: its name, and
                what stands in the place of the partition.
            shared: whether all partitions whose artifact has this fingerprint share it.
        """
        asset, partition = beside or (context.asset_key.path[-1], context.partition_key)
        origin = Origin(
            asset=asset,
            partition=partition,
            inputs={artifact.asset: artifact.fingerprint for artifact in inputs},
            sections=dict(sections),
            resolved=dict(resolved),
            smoke=self.smoke,
            contents={artifact.asset: artifact.content for artifact in inputs},
        )
        # Equal for all partitions, so that one's artifact proves to be what another's would be.
        content = {key: value for key, value in origin.as_json().items() if key != "partition"}
        code_version = context.assets_def.code_versions_by_key[context.asset_key]
        fingerprint = fingerprint_of({**content, "code_version": code_version})
        plan = Plan(self.store(context.log.info), origin, fingerprint, context.log.info)
        return replace(plan, origin=replace(origin, partition=fingerprint), partition=partition) if shared else plan


def _folder(path: str, setting: str) -> Path:
    """Return the path of a folder, which is there or can be made.

    Raises:
        FinetuningError: it, or what it is to be in, is something else.
    """
    folder = Path(path).absolute()
    there = next(part for part in (folder, *folder.parents) if os.path.lexists(part))
    if not there.is_dir():
        what = "a link to what is gone" if there.is_symlink() else "a file"
        raise FinetuningError(
            f"{variable(setting)}: {folder} is no folder, and none can be made: {there} is {what}. Remove it, or set "
            f"{variable(setting)} to another folder."
        )
    return folder


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Hands an asset the artifacts of the assets that it names as parameters; the assets themselves write them."""

    artifacts: Artifacts

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Return at once: the artifact is in force since `Plan.obtain` returned."""

    def load_input(self, context: dg.InputContext) -> Artifact | None:
        """Return the artifact in force of the asset upstream, for the partition that runs.

        None for an asset that the recipe does not ask for.

        Raises:
            dagster.Failure: there is none.
        """
        try:
            asset = context.asset_key.path[-1]
            if asset in ASKED_FOR_BY and not asks_for(load_for_run(context.partition_key), asset):
                return None
            return self.artifacts.held(asset, context.partition_key, context.log.info)
        except FinetuningError as error:
            passes = isinstance(error, TransientError)
            raise dg.Failure(masked(str(error)), metadata={KIND: error.kind}, allow_retries=passes) from None
