"""Two small services, to test the kit with: `echo` answers and streams, `front` calls it and has a schema."""
