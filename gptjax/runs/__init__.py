"""A run: opened, started, shown; read from its folder while it trains and afterwards."""
