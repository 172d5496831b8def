"""One encoder taught many tasks in words, against encoders taught one of them for as many updates."""
