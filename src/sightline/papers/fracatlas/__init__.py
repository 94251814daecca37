"""FracAtlas, tables of ours: localisers, what guidance gives with few images and few or wrong marks, and why."""
