"""Enable Banking: the integration, vocabulary and stand-in. Importing this package does not import these modules."""
