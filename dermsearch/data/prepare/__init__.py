"""A downloaded data set becomes a case store."""
