//! A client of the Docker Engine REST API, for our own commands.
