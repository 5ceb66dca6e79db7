"""One stage per file: read a contract, call models, write a contract. Workers import this; Prefect is not here."""
