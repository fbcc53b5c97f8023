"""Where objects are kept: a local folder or an object store, behind one small set of operations."""
