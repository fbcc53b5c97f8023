"""Studies: a file names trainings, servers, evaluations, tables and figures; a runner does what is left of them."""
