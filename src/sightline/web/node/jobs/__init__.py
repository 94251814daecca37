"""From a study that has become quiet to results in the spool: rules, gate, child processes."""
