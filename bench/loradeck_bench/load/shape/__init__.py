"""When requests are sent and to whom: arrival laws, rates over time, popularity laws, recorded traces."""
