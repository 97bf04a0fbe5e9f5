"""One module for each public recording; ``ABOUT`` says where it is had, ``run`` measures."""
