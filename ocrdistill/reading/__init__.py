"""Reading the words that were found: recognisers, and the forms in which text is written."""
