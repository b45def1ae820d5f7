"""Parts of the driver that sends random requests to the service: see ../http.py."""
