"""The store: datasets, manifests, fingerprints, bundles, lock."""
