"""The Studio dialect, `/studio/v1`: what is ours alone. Errors are problem documents."""
