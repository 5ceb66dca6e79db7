"""Prefect: settings of servers and runs, deployments, automations, and the order of the events of a server."""
