"""Sources, splits and immutable snapshots of datasets."""
