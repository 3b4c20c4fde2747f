// Rewrites
