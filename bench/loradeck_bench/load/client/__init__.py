"""What one client process of a load test can send, measured against a server that answers at once."""
