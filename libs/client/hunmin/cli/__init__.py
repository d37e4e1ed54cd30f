"""The subcommands of `hunmin` that work over the API. They know no torch and no server."""
