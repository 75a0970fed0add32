"""Where the server keeps metrics: the contract (`protocol`) and its engine on SQLite (`sqlite`)."""
