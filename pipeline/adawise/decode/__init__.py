"""Message bytes from strangers -> images, or a reason why not. Pure, but for the child process."""
