"""Who may do what: keys, certificates, grants, quotas, and the log of what operators did."""
