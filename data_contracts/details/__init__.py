"""The details in manifests: facts about the units and bundles of the store, one dataclass per kind."""
