"""Delta storage: a full checkpoint's weight file as its exact difference to files of its base."""
