"""Everything that imports Ray: the cluster, Tune and its workers, Ray Train."""
