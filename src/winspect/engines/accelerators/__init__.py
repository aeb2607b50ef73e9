"""What only accelerators have: weights prefetched to a cache, captured graphs."""
