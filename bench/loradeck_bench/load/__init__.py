"""Load tests over gRPC: who is asked and when, what each request met, and what that adds up to."""
