"""Mixed precision: how many bits each weight gets, chosen by what fewer would cost."""
