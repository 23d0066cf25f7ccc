"""Enable Banking: the integration, vocabulary and stand-in. Importing this package does not import these modules."""

NEEDS = "ENABLE_BANKING_APPLICATION_ID"
