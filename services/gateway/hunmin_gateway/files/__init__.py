"""Files that the gateway keeps itself: a row here, the content in the blob store. Knows no dialect."""
