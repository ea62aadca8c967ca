"""Paths in, rows in the store.

``files`` finds models, ``measure_file`` measures one, ``ingest`` stores it, ``simulate`` runs one
and stores the run, ``ingest_child`` ingests in a process that can be cancelled, ``freshness`` asks
whether a file changed since. ``outcome`` is what all of them hand on. Nothing here draws.
"""
