"""What `loradeck doctor` looks at: one module per subject, each yields `Check`s and changes nothing."""
