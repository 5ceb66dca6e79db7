"""Files and modules for a Prefect server: its environment, its automations, and the order of its events."""
