"""Envelopes and shards of snapshots, splits, and work on Dask, for any track."""
