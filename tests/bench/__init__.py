"""What is measured: `make bench` and `make races`."""
