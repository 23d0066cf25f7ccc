"""The product's functions. They import neither Celery nor an HTTP library nor SQL."""
