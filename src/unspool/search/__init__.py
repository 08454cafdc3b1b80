"""Methods of the search loop: one file a method."""
