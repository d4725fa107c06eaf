"""Storage of bytes: a store that can create what is absent, in a folder or in a bucket. It knows no layout."""
