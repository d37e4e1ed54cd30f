"""The CLOVA Studio dialect, as NAVER documents it. Decides nothing that another dialect would share."""
