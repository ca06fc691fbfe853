"""Study logs and leases in an SQL database."""
