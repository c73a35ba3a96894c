"""Our games, seats and policies in the worlds of other libraries; each module needs the library that it is named for."""
