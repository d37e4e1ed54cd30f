"""How people log in, and stay so: sessions in a cookie, whoever knows the people. Knows no account and no right."""
