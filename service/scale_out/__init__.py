"""The same work on many machines, by Ray: an optional extra that nothing else needs."""
