"""What the product does. Knows neither Celery nor an HTTP library nor SQL."""
