"""The OpenAI dialect: translates requests, events and errors. Decides nothing that another dialect would share."""
