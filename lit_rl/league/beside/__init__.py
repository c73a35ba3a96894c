"""Our games, seats and policies in the worlds of other libraries; a module needs the library that it is named for."""
