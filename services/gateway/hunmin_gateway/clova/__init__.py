"""The CLOVA Studio dialect: so far its tuning API. Decides nothing that another dialect would share."""
