"""Load tests of a real server: server process, clients, scenarios, and figures."""
