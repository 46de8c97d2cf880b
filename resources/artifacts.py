"""Where every asset's output lives: a folder named by its fingerprint, written whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from finetuning.errors import KIND, FinetuningError, PassingError

if TYPE_CHECKING:
    from resources.store.object_store import ObjectStore
from resources.store.artifact import LOG, Artifact, Log, fingerprint_of, named_in, read_artifact
from resources.store.locks import hold
from resources.store.plan import Plan


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

    def remote(self, log: Log = LOG) -> "ObjectStore | None":
        """The artifacts on object storage; None where they are on this machine's disk.

        Raises:
            FinetuningError: the address, or the limit of the cache, is none.
        """
        if "://" not in self.root:
            return None
        from resources.store.object_store import object_store

        return object_store(self.root, self.cache, self.cache_gb, log)

    def everywhere(self) -> dict[str, Any]:
        """The settings with which another machine finds the same artifacts; its cache is its own."""
        root = self.root if "://" in self.root else str(Path(self.root).absolute())
        return {"root": root, "cache_gb": self.cache_gb, "smoke": self.smoke}

    def home(self, asset: str, partition: str) -> Path:
        """The folder of one asset's artifacts for one partition, on this machine."""
        remote = self.remote()
        return (remote.cache if remote else Path(self.root).absolute()) / asset / partition

    def current(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """The artifact in force.

        Raises:
            FinetuningError: none is there yet, what `current.json` names is not complete, or a smoke run made it and
                this is none, or the other way round.
        """
        home, remote = self.home(asset, partition), self.remote(log)
        fingerprint = remote.named_in(home) if remote else named_in(home)
        read = remote.fetch if remote else read_artifact
        artifact = read(home / fingerprint) if fingerprint else None
        if artifact is None:
            raise FinetuningError(
                f"{remote.address_of(home) if remote else home}: no complete artifact of {asset} for {partition}. "
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

    def held(self, asset: str, partition: str, log: Log = LOG) -> Artifact:
        """The artifact in force, which nobody removes before this process ends.

        Raises:
            FinetuningError: none is there.
        """
        while True:
            artifact = self.current(asset, partition, log)
            # It may have been removed before it was held. One that is stored elsewhere too may go out of force there.
            if hold(artifact.path) and (artifact.address or named_in(artifact.path.parent) == artifact.fingerprint):
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
    ) -> "Plan":
        """The artifact-to-be of the asset and partition that `context` materializes, with its fingerprint.

        It is that of the asset, its code version, the recipe `sections` that it reads, what they `resolved` to, and the
        fingerprints of its `inputs`.

        Args:
            beside: of an artifact that the asset makes beside its own, for other recipes to use too: its name, and
                what stands in the place of the partition.
        """
        asset, partition = beside or (context.asset_key.path[-1], context.partition_key)
        record = {
            "asset": asset,
            "inputs": {artifact.asset: artifact.fingerprint for artifact in inputs},
            "sections": dict(sections),
            "resolved": dict(resolved),
            **({"smoke": True} if self.smoke else {}),
        }
        code_version = context.assets_def.code_versions_by_key[context.asset_key]
        return Plan(
            home=self.home(asset, partition),
            fingerprint=fingerprint_of({**record, "code_version": code_version}),
            record={**record, "partition": partition},
            log=context.log.info,
            remote=self.remote(context.log.info),
        )


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Hands an asset the artifacts of the assets that it names as parameters; the assets themselves write them."""

    artifacts: Artifacts

    def handle_output(self, context: dg.OutputContext, obj: Artifact) -> None:
        """Nothing: the artifact is in force since `Plan.obtain` returned."""

    def load_input(self, context: dg.InputContext) -> Artifact:
        """The artifact in force of the asset upstream, for the partition that runs.

        Raises:
            dagster.Failure: there is none.
        """
        try:
            return self.artifacts.held(context.asset_key.path[-1], context.partition_key, context.log.info)
        except FinetuningError as error:
            passes = isinstance(error, PassingError)
            raise dg.Failure(str(error), metadata={KIND: error.kind}, allow_retries=passes) from None
